"""Demonstrations: the first n successful episodes of a task's expert.

    attempt      0   1   2   3   4   5   6         Attempts have fixed episode seeds and are taken in order, so the
    success      x   x   -   x   x   -   x         same demonstrations come out for any number of workers and after
    kept (n=4)   0   1       2   3                 any interruption. The share of successes among the attempts up to
                                                   the last kept one is the task's ceiling: what imitation can reach.

A collection with a folder is cached under a name that holds the task, n and a digest of everything it depends
on. While it runs, finished batches lie beside it in `<name>.partial`, from where an interrupted run goes on. The versions
of the simulator are part of the name, its fingerprint lies inside: what an edited simulator of equal version has made is refused.
Batches can be made in any order and by many machines (`missing_batches`, `collect_batch`); `collect` then takes them as its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.artifact import sweep_abandoned
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.episodes import Episode, EpisodeStore, episode_seed
from reconverge.envs.errors import DamagedFile, ReconvergeError, UnsupportedEnvironment
from reconverge.envs.expert_paces import unhurried
from reconverge.envs.experts import Expert, check_expert, run_expert
from reconverge.envs.recorded_episodes import recorded_batches
from reconverge.envs.simulator_fingerprint import simulator_fingerprint
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.envs.task_files import task_file
from reconverge.envs.tasks import make_env, simulator_version

BATCH = 20
"""Attempts per batch: the unit of work, of storage and of what an interruption can lose."""
LEAST_CEILING = 0.1
"""Collecting gives up on an expert that succeeds less often than this."""
FORMAT = 1

OnProgress = Callable[[int, int], None]


class OtherSimulator(ReconvergeError):
    """Demonstrations of the same name that a simulator with another fingerprint has made."""


@dataclass(frozen=True)
class Demonstrations:
    """Successful episodes of one task, in attempt order.

    Attributes:
        attempts: episodes the expert tried, up to the last one kept.
        successes: how many of them succeeded, which is how many are kept.
    """

    task: Task
    episodes: list[Episode]
    attempts: int
    successes: int

    @property
    def ceiling(self) -> float:
        """The expert's success rate, in (0, 1]."""
        return self.successes / self.attempts


def data_digest(demonstrations: Demonstrations) -> str:
    """SHA-256, in hexadecimal, over task, seeds, observations, actions and success of every kept episode: equal digests, equal training data."""
    found = hashlib.sha256(f"{demonstrations.task.name}\0{len(demonstrations.episodes)}\0".encode())
    for episode in demonstrations.episodes:
        found.update(f"{episode.seed}\0{episode.observations.shape}\0{episode.actions.shape}\0".encode())
        for array, kind in ((episode.observations, np.float32), (episode.actions, np.float32), (episode.success, np.uint8)):
            found.update(np.ascontiguousarray(array, kind).tobytes())
    return found.hexdigest()


def collect(
    task: Task,
    config: DemonstrationConfig,
    episodes: int,
    folder: Path | None = None,
    progress: OnProgress | None = None,
    simulators: Simulators | None = None,
) -> Demonstrations:
    """The first `episodes` successes of the task's expert (acted out, or found among recorded episodes), from `folder` if they are there already.

    `progress` is called with (successes so far, episodes). `simulators` lends running workers; without it
    `config.workers` are started and ended here. Raises UnsupportedEnvironment for an expert that hardly ever succeeds, OtherSimulator
    where the folder holds what another simulator of the same version has made.
    """
    store = None if folder is None else EpisodeStore(folder / collection_name(task, config, episodes))
    if store is not None and (found := _stored(store, task)) is not None:
        return Demonstrations(task, found[0], found[1], len(found[0]))
    check_expert(task)
    with Simulators(config.workers) as own:
        recorded = task.expert is not None and task.expert.recorded
        attempted = (_batch(task, config, store, simulators or own, batch) for batch in count())
        batches = recorded_batches(task, config.hold_steps, BATCH) if recorded else attempted
        kept, attempts = _first_successes(task, episodes, batches, progress, acts=not recorded)
    if store is not None:
        _finish(store, task, kept, attempts)
    return Demonstrations(task, kept, attempts, len(kept))


def missing_batches(task: Task, config: DemonstrationConfig, episodes: int, folder: Path) -> list[int]:
    """Numbers of the batches that `collect` with this folder is sure to do, in order; none where it can finish, fail or give up without.

    A batch that is not there is taken for one of successes only, so after these have been made more may be missing, and never one too many.
    Recorded episodes are read, not acted out: none. Raises OtherSimulator as `collect` does.
    """
    store = EpisodeStore(folder / collection_name(task, config, episodes))
    if (task.expert is not None and task.expert.recorded) or _stored(store, task) is not None:
        return []
    missing, kept, attempts = [], 0, 0
    for batch in count():
        if kept >= episodes or _hopeless(kept, attempts):
            break
        found = _stored(EpisodeStore(batch_folder(store.folder, batch)), task)
        if found is None:
            missing.append(batch)
        kept += BATCH if found is None else len(found[0])
        attempts += BATCH
    return missing


def collect_batch(task: Task, config: DemonstrationConfig, episodes: int, folder: Path, batch: int) -> None:
    """Make one batch of a collection and leave it beside the collection's folder, from where `collect` takes it. One that is there stays."""
    check_expert(task)
    with Simulators(config.workers) as simulators:
        _batch(task, config, EpisodeStore(folder / collection_name(task, config, episodes)), simulators, batch)


def collect_from(expert: Expert, task: Task, config: DemonstrationConfig, episodes: int, progress: OnProgress | None = None) -> Demonstrations:
    """The same for an expert of your own, such as `Sb3Expert(model)`, at its own pace, in this process and without a cache."""
    env = make_env(task)
    try:
        settings = config.hold_steps, config.action_noise
        batches = ([run_expert(env, expert, seed, *settings) for seed in _seeds(task, config, batch)] for batch in count())
        kept, attempts = _first_successes(task, episodes, batches, progress)
    finally:
        env.close()
    return Demonstrations(task, kept, attempts, len(kept))


def collection_name(task: Task, config: DemonstrationConfig, episodes: int) -> str:
    """Folder name: task, count and a digest of all that the episodes depend on, which the worker count is not."""
    depends = [FORMAT, task.name, task.horizon, episodes, config.hold_steps, config.seed, simulator_version(task)]
    depends += [] if task.expert is None else [task.expert.identity]
    depends += [] if config.action_noise == 0 else [f"action noise {config.action_noise!r}"]
    depends += [] if (paces := paces_of(task, config)) == (1.0,) else [f"paces {paces!r}"]
    digest = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:12]
    return f"{task_file(task.name)}-{episodes}-{digest}"


def paces_of(task: Task, config: DemonstrationConfig) -> tuple[float, ...]:
    """The paces at which the task's expert is tried on a start, in turn."""
    if task.expert is not None:
        return (1.0,)
    return config.paces if config.hasty else unhurried(task.name, config.paces)


def _seeds(task: Task, config: DemonstrationConfig, batch: int) -> list[int]:
    return [episode_seed("demonstration", config.seed, task.name, attempt) for attempt in range(batch * BATCH, (batch + 1) * BATCH)]


def _batch(task: Task, config: DemonstrationConfig, store: EpisodeStore | None, simulators: Simulators, batch: int) -> list[Episode | None]:
    """Attempts, None for a failed one; read from the partial folder where an earlier run, or another machine, has made them."""
    seeds = _seeds(task, config, batch)
    shard = None if store is None else EpisodeStore(batch_folder(store.folder, batch))
    found = None if shard is None else _stored(shard, task)
    if found is not None:
        succeeded = {episode.seed: episode for episode in found[0]}
        return [succeeded.get(seed) for seed in seeds]
    runs = simulators.run_expert(task, seeds, config.hold_steps, config.action_noise, paces_of(task, config))
    if shard is not None:
        with contextlib.suppress(FileNotFoundError):  # another process has just finished the same collection and removed the shards
            shard.write([run for run in runs if run is not None], _facts(task, len(runs)))
    return runs


def _first_successes(
    task: Task, wanted: int, batches: Iterator[list[Episode | None]], progress: OnProgress | None, acts: bool = True
) -> tuple[list[Episode], int]:
    """The first `wanted` successes and how many attempts they took. An expert that `acts` is given up where it hardly ever succeeds; what is
    recorded is read to its end."""
    kept: list[Episode] = []
    attempts = 0
    while len(kept) < wanted:
        batch = next(batches, None)
        if batch is None:
            raise UnsupportedEnvironment(
                f"expert '{task.expert}' holds {len(kept)} successful episodes of '{task.name}' among {attempts}, and {wanted} are wanted; "
                f"ask for {max(1, len(kept))} or fewer (demonstrations)"
            )
        for run in batch:
            attempts += 1
            if run is not None:
                kept.append(run)
            if len(kept) == wanted:
                break
        if len(kept) < wanted and acts and _hopeless(len(kept), attempts):
            raise UnsupportedEnvironment(f"the expert of '{task.name}' reached its goal in {len(kept)} of {attempts} attempts; it cannot teach it")
        if progress is not None:
            progress(len(kept), wanted)
    return kept, attempts


def _hopeless(kept: int, attempts: int) -> bool:
    return attempts >= 5 * BATCH and kept < LEAST_CEILING * attempts


def _stored(store: EpisodeStore, task: Task) -> tuple[list[Episode], int] | None:
    """What the store holds, or None if it is missing or damaged and must be collected (again)."""
    if not store.folder.exists():
        return None
    try:
        episodes, facts = store.read()
        attempts = facts.get("attempts")
        if type(attempts) is not int or attempts < max(1, len(episodes)):
            raise DamagedFile(f"{store.folder} does not say how often the expert tried; it is collected again")
    except DamagedFile:
        shutil.rmtree(store.folder, ignore_errors=True)
        return None
    _check_simulator(store, facts, task)
    return episodes, attempts


def _check_simulator(store: EpisodeStore, facts: dict[str, Any], task: Task) -> None:
    """Raise OtherSimulator unless this simulator has made the episodes. Earlier versions did not say: theirs count by the name alone."""
    now = simulator_fingerprint(task)
    if facts.get("simulator", now) != now:
        raise OtherSimulator(
            f"{store.folder} was collected with another simulator ({facts['simulator']}) than is installed ({now}); install that one again, "
            "or give another folder with --demonstrations.folder, or delete this one to collect it again"
        )


def _facts(task: Task, attempts: int) -> dict[str, Any]:
    return {"attempts": attempts, "simulator": simulator_fingerprint(task)}


def _finish(store: EpisodeStore, task: Task, kept: list[Episode], attempts: int) -> None:
    try:
        store.write(kept, _facts(task, attempts))
    except OSError:
        # Another process that collects the same into the same folder may have been faster.
        if _stored(store, task) is None:
            raise
    shutil.rmtree(partial_folder(store.folder), ignore_errors=True)
    sweep_abandoned(store.folder.parent)


def partial_folder(collection: Path) -> Path:
    """Where the batches of an unfinished collection lie, beside its folder; it goes when the collection is whole."""
    return collection.with_name(f"{collection.name}.partial")


def batch_folder(collection: Path, batch: int) -> Path:
    return partial_folder(collection) / f"batch-{batch:04d}"
