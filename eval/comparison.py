"""Several runs side by side: each run, each method over its seeds, and paired differences between methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconverge.eval import headlines, metrics
from reconverge.eval.intervals import mean_interval, paired_difference
from reconverge.eval.run_results import RunResults


def compare(runs: Sequence[RunResults]) -> dict[str, Any]:
    """One row per run, one per method over its seeds, and paired differences against the first method."""
    methods = list(dict.fromkeys(run.method for run in runs))
    figures = [(run, _figures(run)) for run in runs]
    groups = []
    for method in methods:
        of_method = [values for run, values in figures if run.method == method]
        groups.append({
            "method": method,
            "seeds": len(of_method),
            "figures": {key: mean_interval([values[key] for values in of_method]) for key in ("success", "forgetting", "backward", "forward")},
        })  # fmt: skip
    return {
        "rows": figures,
        "groups": groups,
        "pairs": [pair for method in methods[1:] if (pair := _pair(figures, methods[0], method))],
        "warnings": _unlike(runs),
    }


def _figures(run: RunResults) -> dict[str, Any]:
    rates, own = run.matrix, run.own_stage
    return {
        "success": metrics.average_success(rates, own),
        "success_interval": headlines.final_success(run),
        "forgetting": headlines.forgetting(run).mean,
        "peak": metrics.forgetting_peak(rates, own),
        "backward": metrics.backward_transfer(rates, own),
        "forward": metrics.forward_transfer(rates, own),
        "recovery": headlines.recovery_headline(run),
        "kept": _kept(run),
        "total_s": float(run.cost.get("total_s") or 0),
    }


def _kept(run: RunResults) -> tuple[int, int] | None:
    """Bytes kept after the last stage of the ledger, and how many are data of past tasks."""
    if not run.ledger:
        return None
    last = [entry for entry in run.ledger if entry.stage == run.ledger[-1].stage]
    return sum(entry.bytes for entry in last), sum(entry.bytes for entry in last if entry.past_task_data)


def _pair(figures: Sequence[tuple[RunResults, Mapping[str, Any]]], first: str, second: str) -> dict[str, Any] | None:
    """second - first over the seeds that both have; None without a common seed."""
    by_seed = {method: {run.seed: values for run, values in figures if run.method == method} for method in (first, second)}
    seeds = sorted(by_seed[first].keys() & by_seed[second].keys())
    if not seeds:
        return None
    differences = {
        key: paired_difference([by_seed[second][seed][key] for seed in seeds], [by_seed[first][seed][key] for seed in seeds])
        for key in ("success", "forgetting")
    }
    return {"first": first, "second": second, "seeds": len(seeds), **differences}


def _unlike(runs: Sequence[RunResults]) -> list[str]:
    """What makes the runs not like for like."""
    aspects: dict[str, set[Any]] = {
        "curricula": {run.stages for run in runs},
        "updates per stage": {run.stage_updates for run in runs},
        "progress": {run.stages_done for run in runs},
        "simulators": {str(run.fingerprint.get("simulator")) for run in runs},
        "numbers of parameters": {run.fingerprint.get("parameters") for run in runs},
        "episodes per cell": {tuple(sorted({cell.episodes for cell in run.cells})) for run in runs},
    }
    return [aspect for aspect, values in aspects.items() if len(values) > 1]
