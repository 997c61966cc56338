"""The diagnosis of a stage beside its definitions: what it compares is worked out again from checkpoints and demonstrations, by plain autograd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import pytest
import torch
from small_run import run
from torch import Tensor
from torch.func import functional_call, grad, jacrev
from torch.nn.functional import cosine_similarity
from torch.nn.utils import parameters_to_vector
from toy_sweep import toy

from reconverge.envs.artifact import Artifact
from reconverge.envs.demonstrations import Demonstrations
from reconverge.envs.simulators import Simulators
from reconverge.envs.task import Task
from reconverge.eval.action_spread import action_spread
from reconverge.eval.config import DiagnosisConfig
from reconverge.eval.executed_starts import Executed
from reconverge.eval.replay_fidelity import balanced, fidelity
from reconverge.launch import stage_diagnosis
from reconverge.launch.assembly import make_windows
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.restored_learner import restore_learner
from reconverge.launch.run_demonstrations import collect_all
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_diagnosis import StageDiagnosis
from reconverge.launch.stage_plan import StagePlan, plan_stages, run_curriculum
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.random_streams import torch_stream
from reconverge.policy.windows import WindowBatch, WindowTable

CURRICULUM = """
name: one task twice
tasks: [{task: point-reach-0, demonstrations: 3}, point-reach-1, point-reach-0, point-reach-2]
"""
LAST = 4  # its stage: point-reach-2 is learned, point-reach-0 (which has two optima) and point-reach-1 are rehearsed
SETTINGS = DiagnosisConfig(draws=8, bands=2, batch=256, windows=24, starts=3, alpha=0.1)
Loss = Callable[[Tensor], Tensor]  # of the parameters (P,)


@dataclass(frozen=True)
class Finished:
    """A finished run, which can be diagnosed as if other settings had been its own."""

    folder: RunFolder
    config: RunConfig
    plans: dict[int, StagePlan]
    demonstrations: dict[Task, Demonstrations]

    def configured(self, method: str = "trust-region", **changes: Any) -> RunConfig:
        return replace(self.config, method=method, train=replace(self.config.train, **changes))

    def diagnosis(self, stage: int = LAST, method: str = "trust-region", **changes: Any) -> StageDiagnosis:
        return StageDiagnosis(self.configured(method, **changes), SETTINGS, self.folder, self.plans, stage, self.demonstrations)

    def policy(self, stage: int) -> DiffusionPolicy:
        return DiffusionPolicy.load(self.folder.checkpoint(stage))

    def theta(self, stage: int) -> Tensor:
        return parameters_to_vector(self.policy(stage).denoiser.parameters()).detach().double()

    def real(self, task: Task, episodes: slice = slice(None)) -> WindowTable:
        return make_windows(self.demonstrations[task].episodes[episodes], task, self.tasks.index(task), self.config.policy)

    @property
    def tasks(self) -> list[Task]:
        return list(self.demonstrations)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("diagnosed")
    (path / "twice.yaml").write_text(CURRICULUM)
    base = toy()
    config = replace(
        base,
        curriculum=str(path / "twice.yaml"),
        threads=1,
        policy=replace(base.policy, ema_decay=0.5),  # so that ten updates lead somewhere
        demonstrations=replace(base.demonstrations, folder=str(path / "demonstrations")),
        evaluation=replace(base.evaluation, episodes=1, next_task=False),
    )
    folder = RunFolder.open(run(path / "run", config))
    plans = plan_stages(config, run_curriculum(folder, config))
    with Simulators(0) as simulators:
        demonstrations = collect_all(plans, config, simulators, Progress("quiet"))
    return Finished(folder, config, {plan.number: plan for plan in plans}, demonstrations)


class Definitions:
    """What is to be found at the end of a stage, in float64: teacher and pools are those that stood when it began."""

    def __init__(self, run: Finished, stage: int = LAST) -> None:
        self.run, self.stage = run, stage
        self.student, self.teacher = run.policy(stage).double(), run.policy(stage - 1).double()
        self.theta = run.theta(stage)
        self.source = restore_learner(run.config, run.folder, stage - 1).source

    def stream(self, purpose: str, *words: str | int) -> torch.Generator:
        return torch_stream("diagnosis", self.run.config.seed, self.stage, purpose, *words)

    def replayed(self, task: Task, count: int, purpose: str) -> WindowBatch:
        others = set(range(len(self.run.tasks))) - {self.run.tasks.index(task)}
        assert self.source is not None
        batch = self.source.draw(count, self.stream(f"{purpose} windows", task.name), without=others)
        assert batch is not None
        return batch

    def losses(self, batch: WindowBatch, noise_of: torch.Generator, target: str = "noise", band: tuple[int, int] | None = None) -> Loss:
        """(theta) -> (n,) of a batch: mean square of what is predicted less the target, the added noise or the teacher's prediction."""
        timestep, noise = self.student.diffusion.draw(tuple(batch.actions.shape), noise_of, band)
        noisy = self.student.diffusion.add_noise(batch.actions.double(), noise.double(), timestep)
        condition = self.student.condition(batch.observations.double(), batch.task)
        wanted = noise.double() if target == "noise" else self.teacher.predict_noise(noisy, timestep, condition).detach()

        def losses(theta: Tensor) -> Tensor:
            predicted = functional_call(self.student.denoiser, self.named(theta), (noisy, timestep, condition))
            return ((predicted - wanted) ** 2).mean((1, 2))

        return losses

    def named(self, theta: Tensor) -> dict[str, Tensor]:
        weights = dict(self.student.denoiser.named_parameters())
        parts = theta.split([weight.numel() for weight in weights.values()])
        return {name: part.view(weight.shape) for (name, weight), part in zip(weights.items(), parts, strict=True)}

    def real_loss(self, task: Task, purpose: str) -> Loss:
        batch = self.run.real(task).draw(SETTINGS.batch, self.stream(f"{purpose} windows", task.name))
        losses = self.losses(batch, self.stream(f"{purpose} noise", task.name))
        return lambda theta: losses(theta).mean()

    def real_gradient(self, task: Task, purpose: str) -> Tensor:
        return grad(self.real_loss(task, purpose))(self.theta)

    def meta_gradient(self, task: Task, purpose: str = "meta") -> Tensor:
        """Through the step on the support's loss, to the query's."""
        support, query = self.real_loss(task, f"{purpose} support"), self.real_loss(task, f"{purpose} query")
        return grad(lambda theta: query(theta - SETTINGS.alpha * grad(support)(theta)))(self.theta)

    def replay_gradient(self, task: Task, purpose: str = "replay", target: str = "teacher") -> Tensor:
        losses = self.losses(self.replayed(task, SETTINGS.batch, purpose), self.stream(f"{purpose} noise", task.name), target)
        return grad(lambda theta: losses(theta).mean())(self.theta)

    def penalty_gradient(self, task: Task) -> Tensor:
        """Of lambda / 2 c_i (mu_i . (theta - theta_i*))^2, over the earlier stages i that learned the task."""
        kept = Artifact(self.run.folder.checkpoint(self.stage - 1)).arrays("learner.safetensors")
        own = [plan.number for plan in self.run.plans.values() if plan.number < self.stage and task in plan.tasks]
        mu, curvature = (torch.from_numpy(kept[f"trust-region.{name}"]).double() for name in ("mu", "curvature"))
        terms = [(curvature[number - 1], mu[number - 1], self.run.theta(number)) for number in own]

        def penalty(theta: Tensor) -> Tensor:
            squares = [c * (direction @ (theta - optimum)) ** 2 for c, direction, optimum in terms]
            return self.run.config.train.trust_region.strength / 2 * torch.stack(squares).sum()

        return grad(penalty)(self.theta)


def cosine(one: Tensor, two: Tensor) -> float:
    return float(cosine_similarity(one, two, dim=0))


def noise_free(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> float:
    return float((one[0] + one[1]) @ (two[0] + two[1]) / 4 / ((one[0] @ one[1]) * (two[0] @ two[1])).sqrt())


def picked(row: dict[str, Any], expected: dict[str, float]) -> dict[str, Any]:
    """Of a row of the diagnosis, the figures of which there are expected ones."""
    return {name: row[name] for name in expected}


def near(expected: dict[str, float]) -> Any:
    return pytest.approx(expected, rel=1e-3, abs=2e-4)


# Does the old-task update point where MAML would?


@pytest.mark.parametrize(
    ("changes", "each"),
    [
        ({"replay_weight": 3.0}, 3 / 2),
        ({"replay_weight": 3.0, "distillation": "noise"}, 3 / 2),
        ({"weighting": "tasks-seen"}, 2 / 3 / 2),
        ({"replay_ratio": 0.0}, 0.0),
    ],
    ids=["a weight", "noise as target", "weighed by tasks seen", "nothing replayed"],
)
def test_an_old_task_update_is_its_share_of_the_replay_loss_and_its_own_penalty(finished: Finished, changes: dict[str, Any], each: float) -> None:
    rows, found = finished.diagnosis(**changes).alignment(), Definitions(finished)
    for row, task in zip(rows, finished.tasks[:2], strict=True):
        meta = found.meta_gradient(task), found.meta_gradient(task, "repeated meta")
        penalty, target = found.penalty_gradient(task), changes.get("distillation", "teacher")
        replay = found.replay_gradient(task, "replay", target), found.replay_gradient(task, "repeated replay", target)
        update = each * replay[0] + penalty, each * replay[1] + penalty
        expected = {
            "update": cosine(meta[0], update[0]),
            "update_noise_free": noise_free(meta, update),
            "replay": cosine(meta[0], replay[0]),
            "replay_noise_free": noise_free(meta, replay),
            "penalty": cosine(meta[0], penalty),
            "meta_norm": float(meta[0].norm()),
            "replay_norm": float(replay[0].norm()),
            "penalty_norm": float(penalty.norm()),
        }
        assert row["task"] == task.name and picked(row, expected) == near(expected)


@pytest.mark.parametrize(("changes", "each"), [({"replay_weight": 3.0}, 3 / 2), ({"weighting": "tasks-seen"}, 2 / 3 / 2)])
def test_that_share_is_the_learners(finished: Finished, changes: dict[str, Any], each: float) -> None:
    learner = restore_learner(finished.configured(**changes), finished.folder, LAST - 1).learner
    learner.begin_stage(LAST, finished.real(finished.tasks[-1]), 1)
    assert learner.loss_weights[1] / 2 == pytest.approx(each)


def test_a_task_that_is_learned_again_is_no_old_task(finished: Finished) -> None:
    (row,), found, task = finished.diagnosis(3).alignment(), Definitions(finished, 3), finished.tasks[1]
    meta, penalty = found.meta_gradient(task), found.penalty_gradient(task)
    update, new = found.replay_gradient(task) + penalty, found.real_gradient(finished.tasks[0], "new task")  # the replay loss is its own in whole
    expected = {"update": cosine(meta, update), "penalty": cosine(meta, penalty), "new_task": cosine(meta, new)}
    assert row["task"] == task.name and picked(row, expected) == near(expected)


def test_controls_are_of_the_tasks_and_batches_that_they_are_named_for(finished: Finished) -> None:
    rows, found, (first, second, new) = finished.diagnosis().alignment(), Definitions(finished), finished.tasks
    for row, task, other in zip(rows, (first, second), (second, first), strict=True):
        meta = found.meta_gradient(task)
        expected = {
            "other_replay": cosine(meta, found.replay_gradient(other)),
            "new_task": cosine(meta, found.real_gradient(new, "new task")),
            "first_order": cosine(meta, found.real_gradient(task, "meta query")),
            "repeat": cosine(meta, found.meta_gradient(task, "repeated meta")),
        }
        assert picked(row, expected) == near(expected)
        assert abs(row["random"]) < 5 / len(found.theta) ** 0.5


def test_shares_that_change_within_a_stage_make_no_update_with_a_penalty(finished: Finished) -> None:
    rows = finished.diagnosis(replay_priority=0.5).alignment()
    assert all(row["update"] is row["update_noise_free"] is None and row["replay"] and row["penalty"] for row in rows)


@pytest.mark.parametrize(("method", "changes"), [("replay", {"replay_priority": 0.5}), ("t-dgr", {"replay_weight": 0.0})])
def test_without_a_penalty_an_update_points_where_its_replay_does(finished: Finished, method: str, changes: dict[str, Any]) -> None:
    """`t-dgr` reads no replay weight: it weighs by tasks seen."""
    for row in finished.diagnosis(method=method, **changes).alignment():
        assert row["update"] == pytest.approx(row["replay"]) and row["penalty"] is None


# Is the Fisher of rank one?


@pytest.mark.parametrize(("stage", "episodes"), [(1, 3), (LAST, 5)])
def test_the_fisher_is_that_of_the_stages_own_demonstrations_at_its_optimum(finished: Finished, stage: int, episodes: int) -> None:
    found, (task,) = Definitions(finished, stage), finished.plans[stage].tasks
    for number, (row, band) in enumerate(zip(finished.diagnosis(stage).fisher(), [(0, 50), (0, 25), (25, 50)], strict=True)):
        windows = finished.real(task, slice(episodes)).draw(SETTINGS.draws, found.stream("fisher windows", number))
        gradients = jacrev(found.losses(windows, found.stream("fisher noise", number), band=band))(found.theta)
        mu, halves = gradients.mean(0), gradients.split(SETTINGS.draws // 2)
        expected = {
            "first_timestep": band[0],
            "last_timestep": band[1] - 1,
            "mu_norm": float(mu.norm()),
            "collinearity": float(mu.square().sum() / gradients.square().sum(1).mean()),
            "split_half_cosine": cosine(halves[0].mean(0), halves[1].mean(0)),
        }
        assert (row["stage"], row["task"]) == (stage, task.name) and picked(row, expected) == near(expected)


# Is replay what it replaces?


def test_gaps_are_those_between_a_stages_optimum_and_its_teacher(finished: Finished) -> None:
    rows, found = finished.diagnosis().fidelity(), Definitions(finished)
    for row, task in zip(rows, finished.tasks[:2], strict=True):
        pool = found.replayed(task, SETTINGS.windows, "fidelity")
        real = finished.real(task).draw(SETTINGS.windows, found.stream("real windows", task.name))
        gaps = [found.losses(batch, found.stream("gap noise", task.name), "teacher")(found.theta) for batch in (pool, real)]
        expected = {"windows": SETTINGS.windows, "teacher_gap": float(gaps[0].mean()), "teacher_gap_real": float(gaps[1].mean())}
        assert row["task"] == task.name and picked(row, expected) == near(expected)


def test_replayed_windows_lie_beside_every_other_episode_and_those_between_are_held_out(finished: Finished) -> None:
    rows, found = finished.diagnosis().fidelity(), Definitions(finished)

    def points(batch: WindowBatch) -> Tensor:
        return finished.policy(LAST).normalizer(batch.observations).flatten(1)

    shown = {number: points(finished.real(task, slice(0, None, 2)).all()) for number, task in enumerate(finished.tasks)}
    real = balanced(shown, 4096, found.stream("reference windows"))
    for number, (row, task) in enumerate(zip(rows, finished.tasks[:2], strict=True)):
        held_out = finished.real(task, slice(1, None, 2)).draw(SETTINGS.windows, found.stream("held-out windows", task.name))
        pool, control = (fidelity(points(batch), number, *real) for batch in (found.replayed(task, SETTINGS.windows, "fidelity"), held_out))
        expected = asdict(pool) | {f"{name}_real": value for name, value in asdict(control).items()}
        assert picked(row, expected) == near(expected)


# Who acts, and from where?


def test_spread_is_that_of_the_policy_that_the_stage_ended_with_on_every_task_learned(finished: Finished) -> None:
    rows, found, learned = finished.diagnosis(3).spread(), Definitions(finished, 3), finished.tasks[:2]
    for row, task in zip(rows, learned[::-1], strict=True):  # what is learned now comes last
        windows = finished.real(task).draw(256, found.stream("spread windows", task.name))
        expected = asdict(action_spread(finished.policy(3), windows, 16, found.stream("spread noise", task.name)))
        assert row["task"] == task.name and picked(row, expected) == near(expected)


def test_it_is_the_teacher_that_acts_from_its_pool_and_beside_it_from_real_windows(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    acted: list[tuple[Tensor, Task, Tensor]] = []

    def act(policy: DiffusionPolicy, task: Task, states: Any, seed: int) -> Executed:
        acted.append((parameters_to_vector(policy.denoiser.parameters()).double(), task, torch.from_numpy(states)))
        return Executed(len(states), len(states), successes=len(acted), off=None)

    monkeypatch.setattr(stage_diagnosis, "execute", act)
    (row,) = finished.diagnosis().executed()
    task = finished.tasks[0]  # which stage 3 learned; stage 4 rehearses another one, too
    pool = Artifact(finished.folder.checkpoint(LAST - 1)).arrays("source.safetensors")["pool.0.observations"]
    windows = torch.from_numpy(pool), finished.real(task).all().observations
    for (policy, of, states), observations in zip(acted, windows, strict=True):
        assert torch.equal(policy, finished.theta(LAST - 1)) and of == task
        assert len(states) == SETTINGS.starts and {*map(tuple, states.tolist())} <= {*map(tuple, observations[:, -1].double().tolist())}
    assert (row["stage"], row["task"], row["successes"], row["successes_real"]) == (LAST, task.name, 1, 2)
