"""What the scripted expert does in a few fixed episodes, as it was when this project's results were made.

    task, seed  ->  the expert acts  ->  step of the first success, SHA-256 and mean of the float64 observations

Played again, the episodes tell whether the simulator installed here is the one of the results:

    identical         every observation has the same bits
    last bits         the same successes; where rounding does not grow, at the same steps and with means within LAST_BITS
    different         anything else: another MuJoCo, another Meta-World, an edited model

Rounding grows where a thing lies or sticks with several contacts: scaling all masses by 1 + 1e-15 moves the puck of the SENSITIVE tasks
by 1e-4 to 1e-2 m, and nothing by more than 1e-7 m in the seven others. There gravity scaled by 1.0001 shows as 1e-7 to 1e-5 m.

    python -m reconverge.envs.golden_episodes            compare
    python -m reconverge.envs.golden_episodes --write    record anew, into the checkout (with a changed pin)
"""

from __future__ import annotations

import csv
import hashlib
import io
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import numpy as np

from reconverge.envs.artifact import write_file
from reconverge.envs.curriculum import CW10
from reconverge.envs.episodes import episode_seed
from reconverge.envs.errors import DamagedFile
from reconverge.envs.experts import expert_for
from reconverge.envs.simulator_fingerprint import metaworld_fingerprint
from reconverge.envs.tasks import find_task, make_env

EPISODES = 3
"""Episodes of each of the ten tasks."""
PINNED = ("mujoco", "metaworld")
HOLD_STEPS = 5
"""Steps observed after the first success."""
SENSITIVE = ("push-v3", "push-wall-v3", "peg-unplug-side-v3")
"""Tasks in which another rounding grows to millimetres; of these only the successes are compared."""
LAST_BITS = 1e-8
"""Means of observations, in metres mostly, that are closer than this differ by rounding."""
TABLE = Path("golden", "metaworld.csv")


@dataclass(frozen=True)
class GoldenEpisode:
    """One episode of the expert; `success_step` is 1-based, None without a success, `mean` is over all observed numbers."""

    task: str
    seed: int
    success_step: int | None
    steps: int
    observations_sha256: str
    mean: float


@dataclass(frozen=True)
class GoldenTable:
    """Recorded episodes and what recorded them: versions of `PINNED`, the simulator's fingerprint, and the machine in words."""

    versions: dict[str, str]
    simulator: str
    machine: str
    episodes: tuple[GoldenEpisode, ...]


@dataclass(frozen=True)
class Comparison:
    """Recorded episodes beside the same ones played here; `tasks` are those that differ."""

    verdict: str
    episodes: int
    tasks: tuple[str, ...]
    worst: str
    """The first episode that differs most, in words; empty where all is identical."""


def read_golden() -> GoldenTable:
    """The table that comes with the package; raises DamagedFile for one that cannot be read."""
    try:
        return parse_golden((files("reconverge.envs") / TABLE.as_posix()).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedFile(f"the recorded episodes {TABLE} cannot be read ({error}); install reconverge again") from error


def parse_golden(text: str) -> GoldenTable:
    """A table from its text: lines `# name: value`, then CSV. Raises DamagedFile."""
    lines = text.splitlines()
    facts = dict(line[1:].strip().split(": ", 1) for line in lines if line.startswith("#") and ": " in line)
    try:
        rows = [_episode(row) for row in csv.DictReader(line for line in lines if not line.startswith("#"))]
        return GoldenTable({name: facts[name] for name in PINNED}, facts["simulator"], facts["machine"], tuple(rows))
    except (KeyError, ValueError, TypeError) as error:
        raise DamagedFile(f"the recorded episodes {TABLE} are damaged ({error!r}); install reconverge again") from error


def golden_text(table: GoldenTable) -> str:
    """The text that `parse_golden` reads back."""
    text = io.StringIO()
    facts = {**table.versions, "simulator": table.simulator, "machine": table.machine}
    text.writelines(f"# {name}: {found}\n" for name, found in facts.items())
    writer = csv.DictWriter(text, [field.name for field in fields(GoldenEpisode)], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in asdict(episode).items()} for episode in table.episodes)
    return text.getvalue()


def play(tasks: Sequence[str] = CW10, episodes: int = EPISODES) -> Iterator[GoldenEpisode]:
    """The golden episodes of the tasks as they go with the simulator installed here, task by task."""
    for name in tasks:
        task = find_task(name)
        env, expert = make_env(task), expert_for(task)
        try:
            for number in range(episodes):
                seed = episode_seed("golden", task.name, number)
                observation, _ = env.reset(seed=seed)
                observed, success_step, last = [observation], None, task.horizon
                while len(observed) <= last:
                    action = np.asarray(expert.act(observation), np.float32).astype(np.float64)
                    observation, _, _, _, info = env.step(action)
                    observed.append(observation)
                    if info["success"] and success_step is None:
                        success_step = len(observed) - 1
                        last = min(task.horizon, success_step + HOLD_STEPS)
                numbers = np.ascontiguousarray(observed, np.dtype("<f8"))
                digest = hashlib.sha256(numbers.tobytes()).hexdigest()
                yield GoldenEpisode(task.name, seed, success_step, len(observed) - 1, digest, float(numbers.mean()))
        finally:
            env.close()


def compare(recorded: Sequence[GoldenEpisode], played: Sequence[GoldenEpisode]) -> Comparison:
    """Judge episodes played here against the recorded ones of the same tasks and seeds.

    Raises DamagedFile where one of them was not recorded, or none was played.
    """
    known = {(episode.task, episode.seed): episode for episode in recorded}
    missing = [episode for episode in played if (episode.task, episode.seed) not in known]
    if missing or not played:
        name = f"{missing[0].task}, seed {missing[0].seed}" if missing else "all"
        raise DamagedFile(f"the recorded episodes {TABLE} lack some ({name}); install reconverge again")
    pairs = [(known[episode.task, episode.seed], episode) for episode in played]
    unequal = [(before, now) for before, now in pairs if before != now]
    far = [(before, now) for before, now in unequal if not _within_last_bits(before, now)]
    if not unequal:
        return Comparison("identical", len(played), (), "")
    shown = far or unequal
    tasks = tuple(dict.fromkeys(now.task for _, now in shown))
    worst = max(shown, key=_distance)
    return Comparison("different" if far else "last bits", len(played), tasks, _in_words(*worst))


def _within_last_bits(before: GoldenEpisode, now: GoldenEpisode) -> bool:
    if now.task in SENSITIVE:
        return (before.success_step is None) == (now.success_step is None)
    return (before.success_step, before.steps) == (now.success_step, now.steps) and abs(before.mean - now.mean) <= LAST_BITS


def _distance(pair: tuple[GoldenEpisode, GoldenEpisode]) -> tuple[bool, bool, float]:
    """Episodes that succeed in one place only are furthest apart, then those that succeed at another step."""
    before, now = pair
    return (before.success_step is None) != (now.success_step is None), before.success_step != now.success_step, abs(before.mean - now.mean)


def _in_words(before: GoldenEpisode, now: GoldenEpisode) -> str:
    return f"{now.task}, seed {now.seed}: {_success(now)} here, {_success(before)} recorded; means differ by {abs(now.mean - before.mean):.1g}"


def _success(episode: GoldenEpisode) -> str:
    return "no success" if episode.success_step is None else f"success at step {episode.success_step}"


def _episode(row: dict[str, str]) -> GoldenEpisode:
    if len(row["observations_sha256"]) != 64:
        raise ValueError(f"a digest of {len(row['observations_sha256'])} letters")
    success_step = int(row["success_step"]) if row["success_step"] else None
    return GoldenEpisode(row["task"], int(row["seed"]), success_step, int(row["steps"]), row["observations_sha256"], float(row["mean"]))


def _machine() -> str:
    """The processor, such as `AMD EPYC 7B13, x86_64`."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor() or 'unknown processor'}, {platform.machine()}"


def main(words: Sequence[str]) -> int:
    played = tuple(play())
    if "--write" in words:
        table = GoldenTable({name: version(name) for name in PINNED}, metaworld_fingerprint(), _machine(), played)
        path = Path(__file__).parent / TABLE
        path.parent.mkdir(exist_ok=True)
        write_file(path, golden_text(table))
        print(f"wrote {path}: {len(played)} episodes")
        return 0
    found = compare(read_golden().episodes, played)
    print(f"{found.verdict}: {found.episodes} episodes{f'; {found.worst}' if found.worst else ''}")
    return 0 if found.verdict != "different" else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
