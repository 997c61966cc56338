"""One stage's checkpoint diagnosed: what `diagnosis` puts together, stage by stage.

Every figure is a function of the run's seed, the stage, the task and what is drawn for, so it does not depend on which other
stages are diagnosed.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, fields
from typing import Any

import torch
from torch import Tensor

from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.task import Task
from reconverge.eval.action_spread import action_spread
from reconverge.eval.config import DiagnosisConfig
from reconverge.eval.executed_starts import Executed, executable, execute, nearest_in_time
from reconverge.eval.fisher_structure import fisher_structure, gradient_products, timestep_bands
from reconverge.eval.intervals import wilson
from reconverge.eval.meta_gradient import cosine, distillation_losses, meta_gradient, noise_free_cosine
from reconverge.eval.replay_fidelity import Fidelity, balanced, fidelity
from reconverge.eval.window_picture import strokes
from reconverge.launch.assembly import Assembly, make_windows
from reconverge.launch.config import RunConfig
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_plan import StagePlan
from reconverge.policy.fisher import Draws, denoising_losses, mean_gradient
from reconverge.policy.hooks import Hook
from reconverge.policy.methods.quadratic_penalty import Quadratic, QuadraticPenalty
from reconverge.policy.methods.replay import Rehearse, weights_by_tasks_seen
from reconverge.policy.random_streams import torch_stream
from reconverge.policy.trust_region import TrustRegion
from reconverge.policy.windows import WindowBatch, WindowTable
from reconverge.replay.source import PooledSource

Row = dict[str, Any]
REFERENCE_WINDOWS = 4096  # real windows of each task among which a nearest one is looked for
SPREAD_WINDOWS, SPREAD_SAMPLES = 256, 16  # real windows of a task whose actions are sampled, and how often each
DRAWN_WINDOWS = 200  # windows of each task, real and replayed, in the picture


class StageDiagnosis:
    """One stage's checkpoint, what stood when the stage began, and the real windows."""

    def __init__(
        self,
        config: RunConfig,
        settings: DiagnosisConfig,
        folder: RunFolder,
        plans: dict[int, StagePlan],
        stage: int,
        demonstrations: dict[Task, Demonstrations],
    ) -> None:
        self.config, self.settings, self.stage, self.plan = config, settings, stage, plans[stage]
        of_one_policy = config.method != "single"  # which has a policy of its own for every task, and so nothing earlier
        self.earlier = [plans[number] for number in sorted(plans) if number < stage and of_one_policy]
        self.learner = restore_learner(config, folder, stage).learner
        self.before: Assembly | None = restore_learner(config, folder, stage - 1) if self.earlier else None
        self.policy, self.theta = self.learner.policy, self.learner.parameters.values
        self.losses = denoising_losses(self.policy, self.learner.parameters)
        self.demonstrations = demonstrations

    # the questions, one table each

    def fisher(self) -> list[Row]:
        """The Fisher at this optimum, over all timesteps and in bands of them."""
        timesteps, count = self.policy.diffusion.timesteps, self.settings.draws
        counts = zip(self.plan.tasks, self.plan.demonstrations, strict=True)
        windows = WindowTable.union([self._real(task, slice(episodes)) for task, episodes in counts])
        rows = []
        bands = [band for band in timestep_bands(timesteps, self.settings.bands) if len(self.policy.diffusion.trained_in(band))]
        for number, band in enumerate([(0, timesteps), *bands]):
            draws = self._draws(windows.draw(count, self._stream("fisher windows", number)), self._stream("fisher noise", number), band)
            structure = fisher_structure(gradient_products(self.losses, self.theta, draws), self._stream("fisher signs", number))
            named = {"stage": self.stage, "task": self.plan.title, "first_timestep": band[0], "last_timestep": band[1] - 1}
            rows.append({**named, **asdict(structure)})
        return rows

    def alignment(self) -> list[Row]:
        """Cosines with the meta-gradient of every earlier task: of its update, of the update's parts, of controls."""
        old = self._old_tasks()
        if not old:
            return []
        replays = {task: (self._replay_gradient(task, "replay"), self._replay_gradient(task, "repeated replay")) for task in old}
        new_task = self._real_gradient(self.plan.tasks, "new task")
        rows = []
        for task in old:
            meta, replay, penalty = self._meta_gradients(task), replays[task], self._penalty_gradient(task)
            update = self._update(replay[0], penalty), self._update(replay[1], penalty)
            others = [found for other in old if other != task and (found := cosine(meta[0], replays[other][0])) is not None]
            cosines = {
                "update": cosine(meta[0], update[0]),
                "update_noise_free": noise_free_cosine(meta, update),
                "replay": cosine(meta[0], replay[0]),
                "replay_noise_free": noise_free_cosine(meta, replay),
                "penalty": cosine(meta[0], penalty),
                "other_replay": sum(others) / len(others) if others else None,
                "new_task": cosine(meta[0], new_task),
                "random": cosine(meta[0], torch.randn(len(self.theta), generator=self._stream("random direction", task.name)).to(self.theta)),
                "first_order": cosine(meta[0], self._real_gradient([task], "meta query")),
                "repeat": cosine(*meta),
            }
            named = {"stage": self.stage, "task": task.name, "alpha": self.settings.alpha, "batch": self.settings.batch}
            norms = {"meta_norm": _norm(meta[0]), "replay_norm": _norm(replay[0]), "penalty_norm": _norm(penalty)}
            rows.append({**named, **cosines, **norms})
        return rows

    def fidelity(self) -> list[Row]:
        """The windows of every earlier task that this stage rehearsed, beside real ones held out."""
        pools = {task: pool for task in self._old_tasks() if (pool := self._replayed(task, self.settings.windows, "fidelity")) is not None}
        if not pools or self.before is None:
            return []
        shown = {self._index(task): self._points(self._real(task, slice(0, None, 2)).all()) for task in self.demonstrations}
        real, real_task = balanced(shown, REFERENCE_WINDOWS, self._stream("reference windows"))
        gaps = distillation_losses(self.policy, self.learner.parameters, self.before.learner.policy)
        rows = []
        for task, pool in pools.items():
            found = fidelity(self._points(pool), self._index(task), real, real_task)
            held_out = self._held_out(task)
            beside = fidelity(self._points(held_out), self._index(task), real, real_task) if held_out is not None else None
            whole = self._real(task).draw(len(pool), self._stream("real windows", task.name))
            with torch.no_grad():
                gap, gap_real = (float(gaps(self.theta, self._draws(batch, self._stream("gap noise", task.name))).mean()) for batch in (pool, whole))
            named = {"stage": self.stage, "task": task.name, "windows": len(pool), "teacher_gap": gap, "teacher_gap_real": gap_real}
            control = {f"{field.name}_real": None if beside is None else getattr(beside, field.name) for field in fields(Fidelity)}
            rows.append({**named, **asdict(found), **control})
        return rows

    def spread(self) -> list[Row]:
        """How far samples lie apart and from the expert, on real windows of every task learned so far."""
        rows: list[Row] = []
        for task in [*self._old_tasks(), *self.plan.tasks]:
            windows = self._real(task).draw(SPREAD_WINDOWS, self._stream("spread windows", task.name))
            found = action_spread(self.policy, windows, SPREAD_SAMPLES, self._stream("spread noise", task.name))
            rows.append({"stage": self.stage, "task": task.name, **asdict(found)})
        return rows

    def executed(self) -> list[Row]:
        """The teacher acting from the windows of the tasks that it has just learned, replayed and real ones of the same times."""
        rows = []
        for task, pool in self._just_learned():
            table = self._real(task)
            allowed = self._shuffled(executable(task, pool.times), "executed windows", task)[: self.settings.starts]
            real = self._shuffled(executable(task, table.times), "executed real windows", task)
            if not len(allowed) or not len(real):
                continue
            beside = real[nearest_in_time(pool.times.cpu()[allowed], table.times.cpu()[real])]
            shares = {"": self._execute(task, pool.gather(allowed)), "_real": self._execute(task, table.gather(beside))}
            row: Row = {"stage": self.stage, "task": task.name, "first_step_only": task.family == "metaworld"}
            for suffix, found in shares.items():
                low, high = wilson(found.successes, found.executed)
                row |= {f"{name}{suffix}": value for name, value in {**asdict(found), "wilson_low": low, "wilson_high": high}.items()}
            rows.append(row)
        return rows

    def pictured(self) -> list[Row]:
        """Windows of the tasks just learned, real and replayed, as the strokes of a picture."""
        rows: list[Row] = []
        for task, pool in self._just_learned():
            shown = []
            for windows, purpose in ((self._real(task), "real"), (pool, "replayed")):
                chosen = torch.randperm(len(windows), generator=self._stream(f"pictured {purpose} windows", task.name))[:DRAWN_WINDOWS]
                shown += [windows.gather(chosen).observations.cpu().numpy(), windows.times.cpu()[chosen].numpy()]
            rows += map(asdict, strokes(self.stage, task, *shown))
        return rows

    # directions (P,) at theta

    def _meta_gradients(self, task: Task) -> tuple[Tensor, Tensor]:
        """Two, of independent batches."""

        def estimate(purpose: str) -> Tensor:
            support, query = (self._real_draws([task], f"{purpose} {part}") for part in ("support", "query"))
            return meta_gradient(self.losses, self.theta, support, query, self.settings.alpha)

        return estimate("meta"), estimate("repeated meta")

    def _real_gradient(self, tasks: Sequence[Task], purpose: str) -> Tensor:
        return mean_gradient(self.losses, self.theta, self._real_draws(tasks, purpose))

    def _replay_gradient(self, task: Task, purpose: str) -> Tensor | None:
        batch = self._replayed(task, self.settings.batch, purpose)
        if batch is None or self.before is None:
            return None
        teacher = self.before.learner.policy
        target_is_noise = self.learner.replay_target == "noise"
        losses = self.losses if target_is_noise else distillation_losses(self.policy, self.learner.parameters, teacher)
        return mean_gradient(losses, self.theta, self._draws(batch, self._stream(f"{purpose} noise", task.name)))

    def _penalty_gradient(self, task: Task) -> Tensor | None:
        """Of the rank-1 penalties around this task's optima; None where tasks share one region (the diagonal form)."""
        region = next((found for found in self._regions() if isinstance(found, TrustRegion)), None)
        if region is None or len(region) != len(self.earlier):
            return None
        rows = [row for row, plan in enumerate(self.earlier) if task in plan.tasks]
        own = deepcopy(region)
        own.load_arrays({name: array[rows] for name, array in region.arrays().items()})
        return own.gradient(self.theta)

    def _update(self, replay: Tensor | None, penalty: Tensor | None) -> Tensor | None:
        """A task's own part of the objective's gradient: its share of the replay loss, and its penalty.

        None where there is a penalty and the sum is not a task's own or no fixed one: tasks share one region (diagonal form), lambda is
        another in every update (constraint form), or the tasks' shares change every few updates (`train.replay_priority`).
        """
        form, rehearse = self.config.train.trust_region.form, self._rehearse()
        prioritised = rehearse is not None and rehearse.priority > 0
        if self._regions() and (penalty is None or form == "constraint" or prioritised):
            return None
        if replay is None:
            return penalty
        share = self._replay_weight() / len(self._old_tasks()) * replay
        return share if penalty is None else share + penalty

    def _replay_weight(self) -> float:
        """Of the replay loss, which is the mean over all old tasks, as the stage began."""
        train, rehearse = self.config.train, self._rehearse()
        if rehearse is not None and train.replayed == 0:
            return 0.0
        if rehearse is not None and rehearse.weighting == "tasks-seen":
            return weights_by_tasks_seen(len(self._old_tasks()) + len(self.plan.tasks))[1]
        return train.replay_weight

    def _hooks(self) -> Sequence[Hook]:
        return self.before.learner.method.hooks if self.before is not None else ()

    def _rehearse(self) -> Rehearse | None:
        return next((hook for hook in self._hooks() if isinstance(hook, Rehearse)), None)

    def _regions(self) -> list[Quadratic]:
        return [hook.region for hook in self._hooks() if isinstance(hook, QuadraticPenalty)]

    # windows and draws

    def _old_tasks(self) -> list[Task]:
        """Tasks learned before that are not learned now, which is when they are rehearsed."""
        seen = dict.fromkeys(task for plan in self.earlier for task in plan.tasks)
        return [task for task in seen if task not in self.plan.tasks]

    def _real(self, task: Task, episodes: slice = slice(None)) -> WindowTable:
        found = self.demonstrations[task].episodes[episodes]
        return make_windows(found, task, self._index(task), self.config.policy).to(self.policy.device)

    def _held_out(self, task: Task) -> WindowBatch | None:
        """Windows of every other episode; the episodes between are those that the nearest windows are looked for in."""
        if len(self.demonstrations[task].episodes) < 2:
            return None
        return self._real(task, slice(1, None, 2)).draw(self.settings.windows, self._stream("held-out windows", task.name))

    def _just_learned(self) -> list[tuple[Task, WindowTable]]:
        """(task, pool of windows) of every task that the stage before learned and this one rehearses."""
        if self.before is None or not isinstance(self.before.source, PooledSource) or not self.earlier:
            return []
        pools = self.before.source.pools
        tasks = [task for task in self._old_tasks() if task in self.earlier[-1].tasks and self._index(task) in pools]
        return [(task, pools[self._index(task)]) for task in tasks]

    def _shuffled(self, which: Tensor, purpose: str, task: Task) -> Tensor:
        """The places at which `which` (W,) is true, in random order."""
        places = torch.nonzero(which.cpu()).flatten()
        return places[torch.randperm(len(places), generator=self._stream(purpose, task.name))]

    def _execute(self, task: Task, windows: WindowBatch) -> Executed:
        assert self.before is not None
        return execute(self.before.learner.policy, task, windows.observations[:, -1].cpu().double().numpy(), self.config.seed)

    def _replayed(self, task: Task, count: int, purpose: str) -> WindowBatch | None:
        if self.before is None or self.before.source is None:
            return None
        others = set(range(len(self.policy.tasks))) - {self._index(task)}
        return self.before.source.draw(count, self._stream(f"{purpose} windows", task.name), without=others)

    def _real_draws(self, tasks: Sequence[Task], purpose: str) -> Draws:
        name = tasks[0].name
        batch = WindowTable.union([self._real(task) for task in tasks]).draw(self.settings.batch, self._stream(f"{purpose} windows", name))
        return self._draws(batch, self._stream(f"{purpose} noise", name))

    def _draws(self, batch: WindowBatch, stream: torch.Generator, band: tuple[int, int] | None = None) -> Draws:
        """(clean actions, condition, timestep, noise) with the trained timesteps of a band [low, high), or all of them."""
        timestep, noise = self.policy.diffusion.draw(tuple(batch.actions.shape), stream, band)
        condition = self.policy.condition(batch.observations, batch.task)
        return batch.actions, condition, timestep.to(condition.device), noise.to(condition.device)

    def _points(self, batch: WindowBatch) -> Tensor:
        return self.policy.normalizer(batch.observations).flatten(1)

    def _index(self, task: Task) -> int:
        return self.policy.task_index(task)

    def _stream(self, purpose: str, *words: str | int) -> torch.Generator:
        return torch_stream("diagnosis", self.config.seed, self.stage, purpose, *words)


def _norm(direction: Tensor | None) -> float | None:
    return None if direction is None else float(direction.norm())
