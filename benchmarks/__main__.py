"""The runner: measure cost centres, print their tables, write benchmarks/results/<cost-centre>.csv."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.harness import Bench

CENTRES = {
    "simulator": "metaworld's environments: step, reset, creation",
    "evaluation": "one environment and batch 1: episodes per hour",
    "sampling": "a plain diffusers loop: one action chunk",
    "update": "lerobot's and diffusion_policy's loop: a training update; the trust region's share",
    "fisher": "per-draw gradients: the rank-1 Fisher, time and memory",
    "trust_region": "a loop over tasks and parameters: penalty and gradient",
    "replay": "a plain diffusers loop: generated windows",
    "video": "gymnasium's renderer; what recording costs",
}
"""Every cost centre and what it is compared with. The simulator comes first: it measures the first environment of a process."""

RESULTS = Path(__file__).resolve().parent / "results"
EXAMPLES = """examples:
  python -m benchmarks                       everything, about ten minutes on two cores
  python -m benchmarks update fisher         two cost centres
  python -m benchmarks --quick               everything in a smoke size; tables go to a temporary folder
  python -m benchmarks evaluation --run runs/cw10/trust-region/seed-0
                                             with the last checkpoint of a run
A ratio is theirs / ours: above 1, ours is faster or smaller. Without equality on both sides there is no ratio: the run fails.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))  # for the simulators' processes
    import torch

    torch.set_num_threads(options.threads)
    started, failures = time.perf_counter(), []
    folder = options.out or (_temporary() if options.quick else RESULTS)

    def show(line: str) -> None:
        seconds = int(time.perf_counter() - started)
        print(f"{seconds // 60}:{seconds % 60:02d}  {line}", flush=True)

    benches = []
    for centre in options.centres or CENTRES:
        failure, bench = _measure(centre, options, folder, show)
        benches.append(bench)
        failures += [failure] if failure else []
    _print_tables(benches)
    for line in failures:
        print(f"FAILED  {line}", file=sys.stderr)
    return 1 if failures else 0


def _measure(centre: str, options: argparse.Namespace, folder: Path, show) -> tuple[str, Bench]:  # type: ignore[no-untyped-def]
    """Measure one cost centre and write its table; the failure is `` unless a gate failed."""
    from benchmarks.harness import Bench, GateFailed

    bench = Bench(centre, "quick" if options.quick else "full", options.run, lambda line: show(f"{centre}: {line}"))
    try:
        importlib.import_module(f"benchmarks.{centre}").run(bench)
    except GateFailed as error:
        show(f"{centre}: NOT EQUAL, so nothing of it is written: {error}")
        return f"{centre}: {error}", bench
    for path in bench.write(folder):
        show(f"{centre}: wrote {path}")
    return "", bench


def _print_tables(benches: Sequence[Bench]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("benchmark", "peer", "unit", "ours", "theirs", "ratio", "95 % interval", "blocks", "kind", title="theirs / ours")
    for bench in benches:
        for row in bench.rows:
            amounts = ["" if amount is None else f"{amount:.4g}" for amount in (row.ours, row.theirs, row.ratio)]
            interval = "" if row.ratio_low is None else f"{row.ratio_low:.3g} to {row.ratio_high:.3g}"
            table.add_row(row.benchmark, f"{row.peer}, {row.peer_version}", row.unit, *amounts, interval, str(row.blocks), row.kind)
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 200).print(table)
    for bench in benches:
        for line in bench.skipped:
            print(f"skipped {bench.centre}: {line}")


def _parser() -> argparse.ArgumentParser:
    centres = "\n".join(f"  {name:<14}{against}" for name, against in CENTRES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Compare with other code, after showing that both sides compute the same.\n\ncost centres, and against what:\n{centres}",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("centres", nargs="*", metavar="COST-CENTRE", type=_centre, help="which to measure; all by default")
    parser.add_argument("--quick", action="store_true", help="smoke size: shows that everything works, not how fast")
    parser.add_argument("--run", type=Path, metavar="RUN", help="a run folder: its last checkpoint is evaluated, its cost.json read")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads of both sides (1)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the CSV files go (benchmarks/results)")
    return parser


def _centre(name: str) -> str:
    name = name.replace("-", "_")
    if name not in CENTRES:
        raise argparse.ArgumentTypeError(f"no cost centre '{name}'; one of {', '.join(CENTRES)}")
    return name


def _temporary() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="reconverge-benchmarks-"))


if __name__ == "__main__":
    sys.exit(main())
