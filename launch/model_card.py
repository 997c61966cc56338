"""The card of a policy that is handed over: what it is, how to load it, how often it succeeds, how it was made. Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from reconverge.eval.run_results import Ceiling, Cell, RunResults
from reconverge.policy.diffusion_policy import DiffusionPolicy


def model_card(run: RunResults, policy: DiffusionPolicy, stage: int, how_to_load: str) -> str:
    """`stage` is the one after which the policy was kept; success is shown up to it."""
    return "\n\n".join([
        _front_matter(policy),
        f"# {run.method} on {run.curriculum}, after stage {stage} of {len(run.stages)}, seed {run.seed}",
        f"A diffusion policy that learned {_how_many(run, stage)}, written by `reconverge export`.",
        "## Load", how_to_load,
        "## What it is", _facts(run, policy, stage),
        "## How often it succeeds", _success(run, policy, stage),
        "## How it was made", _origin(run),
    ]) + "\n"  # fmt: skip


def learned(run: RunResults, stage: int) -> tuple[str, ...]:
    """The tasks that the policy kept after `stage` was trained on: all at once in `joint`, the last alone in `single`."""
    if run.method == "joint":
        return run.tasks if stage else ()
    return run.stages[stage - 1 : stage] if run.method == "single" else run.stages[:stage]


def _how_many(run: RunResults, stage: int) -> str:
    tasks = learned(run, stage)
    if run.method == "single" and tasks:
        return f"one task alone, {tasks[0]}"
    return f"{len(tasks)} tasks {'all at once' if run.method == 'joint' else 'one after the other'}"


def _front_matter(policy: DiffusionPolicy) -> str:
    """What model hubs read."""
    return "---\nlibrary_name: reconverge\npipeline_tag: robotics\ntags: [robotics, diffusion-policy, continual-learning]\n---"


def _facts(run: RunResults, policy: DiffusionPolicy, stage: int) -> str:
    config = policy.config
    told = "told by name" if config.task_conditioned else "not told"
    rows = [
        ("method", run.method), ("seed", str(run.seed)),
        ("curriculum", " → ".join(run.stages)), ("learned so far", (", " if run.method == "joint" else " → ").join(learned(run, stage)) or "nothing"),
        ("demonstrations per stage", ", ".join("?" if count is None else str(count) for count in run.stage_demonstrations)),
        ("updates per stage", ", ".join(map(str, run.stage_updates))),
        ("network", f"{config.denoiser}, {policy.parameter_count:,} parameters"),
        ("sampler", f"{config.sampler}, {config.sampling_steps} steps of {config.timesteps}, temperature {config.temperature:g}"),
        ("sees", f"{config.window} observations of {policy.observation_size} numbers; the task is {told}"),
        ("does", f"predicts {config.horizon} actions of {policy.action_size} numbers, executes {config.executed}"),
    ]  # fmt: skip
    return _table(["", ""], rows)


def _success(run: RunResults, policy: DiffusionPolicy, stage: int) -> str:
    """The success matrix up to `stage`, in percent with 95 % intervals."""
    rows = []
    for row in range(stage + 1):
        cells = [run.cell_at.get((row, task)) for task in run.tasks]
        if any(cells):
            rows.append([_stage_name(run, row), *map(_rate, cells)])
    if not rows:
        return "Nothing was evaluated."
    ceilings = {ceiling.task: ceiling for ceiling in run.ceilings}
    rows.append(["the expert itself", *(_rate(ceilings.get(task)) for task in run.tasks)])
    counts = sorted({cell.episodes for cell in run.cells if cell.stage <= stage})
    per_cell = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    said = f"Percent of {per_cell} seeded episodes with fresh goals per cell, 95 % Wilson interval in brackets; success at any step of the episode."
    measured, own = run.config.get("policy") or {}, policy.config
    now = {"sampler": own.sampler, "sampling_steps": own.sampling_steps, "temperature": own.temperature}
    then = {**now, "temperature": 1.0, **{name: measured[name] for name in now if name in measured}}  # older runs know no other temperature
    if then != now:
        how = f"{then['sampler']}, {then['sampling_steps']} steps, temperature {then['temperature']:g}"
        said += f" It was measured with {how}; this policy was exported to act in another way."
    if run.method == "single":
        said += " Each task was evaluated with the policy of its own stage; this one has learned the last task only."
    return f"{_table(['after stage', *run.tasks], rows)}\n\n{said}"


def _stage_name(run: RunResults, stage: int) -> str:
    return "0 (untrained)" if stage == 0 else f"{stage} ({'all tasks' if run.method == 'joint' else run.stages[stage - 1]})"


def _rate(cell: Cell | Ceiling | None) -> str:
    if cell is None:
        return "–"
    return f"{100 * cell.rate:.0f} ({100 * cell.wilson_low:.0f} to {100 * cell.wilson_high:.0f})"


def _origin(run: RunResults) -> str:
    found = run.fingerprint
    rows = [("command", f"`{run.command}`")]
    rows += [(key, str(found[key])) for key in ("method_package", "git_commit", "simulator", "python", "machine") if found.get(key)]
    rows += [(name, str(version)) for name, version in (found.get("versions") or {}).items()]
    for group in ("simulators", "demonstrations"):
        digests = found.get(group)
        rows += [(f"{group}: {name}", f"`{digest}`") for name, digest in digests.items()] if isinstance(digests, dict) else []
    return _table(["", ""], rows)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(entry).replace("|", "\\|").replace("\n", " ") for entry in line) + " |" for line in lines)
