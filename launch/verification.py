"""Whether a run folder still says what was measured: every byte against its hash, every figure against what it follows from.

    files.json ---------> every file of the folder            hashes of what was there when the run let go of the folder
    manifest.json ------> checkpoints, demonstrations         hashes of their own
    records ------------> every table                         written anew in another place and compared, byte by byte
    episodes.csv -------> success matrix, recovery            the same, also where there are no checkpoints (published tables)
    counts -------------> rates, intervals, recovery          where there are no episodes either

Nothing in the run folder is written. A check that cannot be made says why; one that breaks is a finding, never a traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from reconverge.envs.errors import ReconvergeError
from reconverge.launch.byte_checks import check_checkpoints, check_demonstrations, check_seal, check_settings
from reconverge.launch.count_checks import check_counts
from reconverge.launch.run_lock import standing_lock
from reconverge.launch.seal import SEAL
from reconverge.launch.table_checks import check_against_episodes, check_against_records, check_episodes, check_stages, check_tables
from reconverge.launch.verified_run import Check, VerifiedRun

CHECKS: dict[str, Callable[[VerifiedRun], Iterable[Check]]] = {
    SEAL: check_seal,
    "config.yaml": check_settings,
    "checkpoints": check_checkpoints,
    "demonstrations": check_demonstrations,
    "tables": check_tables,
    "records": check_against_records,
    "episodes.csv": check_episodes,
    "from episodes": check_against_episodes,
    "from counts": check_counts,
    "stages": check_stages,
}
BETWEEN_TABLES = ("records", "episodes.csv", "from episodes", "from counts", "stages")
"""Checks that hold one table against another, or against the last checkpoint."""


def verify(path: Path) -> Iterator[Check]:
    """All checks of a run folder, or of one with a run's published tables, as they are made. What cannot be read is a finding, no error."""
    standing = standing_lock(path)
    is_written = standing is not None and standing[1]
    run = VerifiedRun(path)
    for subject, check in CHECKS.items():
        found = _found(run, subject, check)
        if is_written and any(each.outcome == "DIFFERS" for each in found):
            run = VerifiedRun(path)  # a stage may have ended since its checkpoints were read
            found = _found(run, subject, check)
        yield from found


def _found(run: VerifiedRun, subject: str, check: Callable[[VerifiedRun], Iterable[Check]]) -> list[Check]:
    found: list[Check] = []
    try:
        if not (subject in BETWEEN_TABLES and run.half_written):
            found.extend(check(run))  # what comes before an error stays
    except (ReconvergeError, OSError) as error:
        found.append(Check(subject, "DIFFERS", " ".join(str(error).split())[:500]))
    except Exception as error:  # whatever a damaged file can lead to
        found.append(Check(subject, "DIFFERS", f"it cannot be understood ({type(error).__name__}: {' '.join(str(error).split())[:300]})"))
    return found
