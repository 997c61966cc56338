from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from small_learner import SIZE, SMALL, Asked, ByTask, Source, learner_of, region, train
from small_policy import random_windows, small_policy

from reconverge.envs.errors import DamagedFile
from reconverge.policy.config import OptimizerConfig, TrainConfig, TrustRegionConfig, UpdateBudgetConfig
from reconverge.policy.hooks import Hook, Losses, Method
from reconverge.policy.learner import Learner, UpdateFigures
from reconverge.policy.methods.adaptive import adaptive_trust_region
from reconverge.policy.methods.bounds import finetune, single
from reconverge.policy.methods.ewc import ewc
from reconverge.policy.methods.functional_trust_region import FunctionalTrustRegion
from reconverge.policy.methods.l2 import l2
from reconverge.policy.methods.mas import mas
from reconverge.policy.methods.meta_learning import vr_mcl
from reconverge.policy.methods.replay import Rehearse, replay, shares_of
from reconverge.policy.methods.si import si
from reconverge.policy.methods.t_dgr import t_dgr
from reconverge.policy.methods.trust_region import trust_region
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowBatch, WindowTable


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    first, again, other = (train(learner_of(finetune(), seed=seed)).parameters.values for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_nothing_is_drawn_from_the_global_generator() -> None:
    torch.manual_seed(1)
    first = train(learner_of(replay(Source(), SMALL))).parameters.values
    torch.manual_seed(2)
    assert torch.equal(first, train(learner_of(replay(Source(), SMALL))).parameters.values)


def test_one_update_is_the_papers_objective() -> None:
    """The gradient that the learner steps along, against autograd of the objective written out."""
    size = small_policy().parameter_count
    learner = learner_of(trust_region(Source(), SMALL, size))
    train(learner, stages=1)
    learner.begin_stage(2, random_windows(task=1, seed=2), 5)
    for _ in range(3):
        learner.update()
    region = learner.method.hooks[1].region  # type: ignore[attr-defined]
    theta, policy, update = learner.parameters.values.clone(), learner.policy, learner.update_index + 1

    current = learner.windows.draw(16, learner.streams.generator("windows", update))
    replayed = Source().draw(16, learner.streams.generator("replay", update))
    both = WindowBatch.concatenate([current, replayed])
    timestep, noise = policy.diffusion.draw(tuple(both.actions.shape), learner.streams.generator("noise", update))
    noisy = policy.diffusion.add_noise(both.actions, noise, timestep)
    condition = policy.condition(both.observations, both.task)
    assert learner.teacher is not None
    target = torch.cat([noise[:16], learner.teacher.predict_noise(noisy, timestep, condition)[16:]]).detach()
    learner.parameters.gradient.zero_()
    error = (policy.predict_noise(noisy, timestep, condition) - target).square()
    (error[:16].mean() + error[16:].mean()).backward()
    expected = learner.parameters.gradient + region.gradient(theta)

    figures = learner.update()
    assert figures.penalty is not None and torch.isclose(figures.penalty, region.penalty(theta))
    assert torch.allclose(figures.gradient_norm, expected.norm(), rtol=1e-4)
    clipped = expected * min(1.0, 1 / float(expected.norm()))
    assert torch.allclose(learner.parameters.gradient, clipped, atol=1e-6)


def test_large_gradients_are_clipped() -> None:
    class Explode(Hook):
        def adjust_gradients(self, learner: Learner) -> None:
            learner.parameters.gradient.mul_(1e6)

    learner = learner_of(Method("explode", (Explode(),)))
    learner.begin_stage(1, random_windows(), 5)
    learner.update()
    assert float(learner.parameters.gradient.norm()) < 1.001


def test_the_next_stage_starts_from_the_averaged_weights_which_are_the_teacher() -> None:
    learner = train(learner_of(finetune()), stages=1)
    assert torch.equal(learner.parameters.values, learner.averaged)
    assert learner.teacher is not None
    before = [parameter.clone() for parameter in learner.teacher.denoiser.parameters()]
    learner.begin_stage(2, random_windows(task=1), 5)
    learner.update()
    assert all(torch.equal(a, b) for a, b in zip(before, learner.teacher.denoiser.parameters(), strict=True))
    assert not torch.equal(learner.parameters.values, torch.cat([part.flatten() for part in before]))


def test_a_stronger_trust_region_moves_less_along_mu() -> None:
    moved = []
    for strength in (0.0, 1e4):
        config = TrainConfig(
            batch_size=16, trust_region=TrustRegionConfig(strength, 256), optimizer=OptimizerConfig(schedule="constant", max_gradient_norm=0)
        )
        learner = train(learner_of(ewc(config.trust_region, small_policy().parameter_count), config), stages=2, updates=40)
        region = learner.method.hooks[0].region  # type: ignore[attr-defined]
        moved.append(abs(float(region.distances(learner.parameters.values)[0])) / float(region.mu[0].norm()))
    assert moved[1] < 0.2 * moved[0]


def test_the_functional_form_raises_the_replay_weight_until_the_network_is_true_to_its_teacher() -> None:
    weights = []
    for radius in (1e-6, 1e6):
        config = TrainConfig(batch_size=16, trust_region=TrustRegionConfig(form="functional", radius=radius))
        learner = train(learner_of(trust_region(Source(), config, 0), config), stages=2, updates=20)
        weights.append(learner.loss_weights)
    assert 1.5 < weights[0][1] <= FunctionalTrustRegion.MOST and FunctionalTrustRegion.LEAST <= weights[1][1] < 1


def test_tasks_seen_share_the_loss() -> None:
    learner = train(learner_of(replay(Source(), replace(SMALL, weighting="tasks-seen"))), stages=1)
    assert learner.loss_weights == (1.0, 1.0)  # the first task is alone
    learner.begin_stage(2, random_windows(task=1), 5)
    assert learner.loss_weights == (0.5, 0.5)


def test_without_replayed_windows_the_current_task_keeps_its_weight() -> None:
    none = replace(SMALL, weighting="tasks-seen", replay_ratio=0.0)
    learner = train(learner_of(replay(Source(), none), none), stages=1)
    learner.begin_stage(2, random_windows(task=1), 5)
    assert learner.loss_weights == (1.0, none.replay_weight)


def test_bfloat16_rounds_the_products_of_an_update_and_nothing_that_is_kept() -> None:
    learners = [learner_of(trust_region(Source(), SMALL, SIZE), replace(SMALL, precision=precision)) for precision in ("float32", "bfloat16")]
    exact, rounded = (train(learner).parameters.values for learner in learners)
    assert rounded.dtype == torch.float32 and not torch.equal(exact, rounded) and (exact - rounded).norm() < 0.01 * exact.norm()
    assert learners[1].windows.all().actions.dtype == learners[1].averaged.dtype == torch.float32


METHODS: dict[str, Callable[[], Method]] = {
    "penalty": lambda: trust_region(Source(), SMALL, SIZE),
    "constraint": lambda: trust_region(Source(), region("constraint", radius=1e-6), SIZE),
    "functional": lambda: trust_region(Source(), region("functional"), SIZE),
    "diagonal": lambda: ewc(replace(SMALL.trust_region, fisher="diagonal"), SIZE),
    "l2": lambda: l2(SMALL.l2, SIZE),
    "mas": lambda: mas(replace(SMALL.mas, draws=32), SIZE),
    "si": lambda: si(SMALL.si, SIZE),
    "single": single,
    "vr-mcl": lambda: vr_mcl(Source(), SMALL),
    "adaptive": lambda: adaptive_trust_region(Source(), replace(SMALL, update_budget=UpdateBudgetConfig(draws=32)), SIZE),
}


@pytest.mark.parametrize("method", METHODS)
def test_arrays_carry_a_learner_over_a_stage_boundary(method: str) -> None:
    make = lambda: learner_of(METHODS[method]())  # noqa: E731
    whole = train(make(), stages=2)
    first = train(make(), stages=1)
    resumed = make()
    resumed.policy.load_state_dict(first.policy.state_dict())
    resumed.load_arrays(1, first.arrays())
    resumed.begin_stage(2, random_windows(task=1, seed=2), 5)
    for _ in range(5):
        resumed.update()
    resumed.end_stage()
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
    assert all((resumed.arrays()[name] == array).all() for name, array in whole.arrays().items())


def test_there_is_no_teacher_in_the_first_stage_however_it_is_begun() -> None:
    learner = learner_of(METHODS["penalty"]())
    assert learner.teacher is None
    learner.load_arrays(0, learner.arrays())
    assert learner.teacher is None


@pytest.mark.parametrize("method", METHODS)
def test_underway_carries_a_learner_over_the_middle_of_a_stage(method: str) -> None:
    def after_three(learner: Learner) -> Learner:
        learner = train(learner, stages=1)
        learner.begin_stage(2, random_windows(task=1, seed=2), 5)
        for _ in range(3):
            learner.update()
        return learner

    whole = after_three(learner_of(METHODS[method]()))
    saved = {name: array.copy() for name, array in whole.underway().items()}
    resumed = train(learner_of(METHODS[method]()), stages=1)
    resumed.begin_stage(2, random_windows(task=1, seed=2), 5)
    resumed.load_underway(saved)
    for learner in (whole, resumed):
        learner.update()
        learner.update()
        learner.end_stage()
    assert torch.equal(resumed.parameters.values, whole.parameters.values)


CARRIED = replace(SMALL, optimizer=OptimizerConfig(carry_second_moment=True))


def test_a_carried_second_moment_goes_through_saves_between_and_within_stages() -> None:
    whole = train(learner_of(finetune(), CARRIED), stages=2)
    first = train(learner_of(finetune(), CARRIED), stages=1)
    between = {name: array.copy() for name, array in first.arrays().items()}
    first.begin_stage(2, random_windows(task=1, seed=2), 5)
    for _ in range(3):
        first.update()
    within = {name: array.copy() for name, array in first.underway().items()}

    resumed = train(learner_of(finetune(), CARRIED), stages=1)
    resumed.load_arrays(1, between)
    resumed.begin_stage(2, random_windows(task=1, seed=2), 5)
    resumed.load_underway(within)
    for _ in range(2):
        resumed.update()
    resumed.end_stage()
    assert torch.equal(resumed.parameters.values, whole.parameters.values)
    assert resumed.second_moment is not None and resumed.second_moment.steps == 10
    fresh = train(learner_of(finetune()), stages=2)
    assert fresh.second_moment is None and not torch.equal(fresh.parameters.values, whole.parameters.values)


def test_a_save_without_the_second_moment_is_refused() -> None:
    with pytest.raises(DamagedFile, match=r"learner.safetensors lacks the array 'exp_avg_sq'"):
        learner_of(finetune(), CARRIED).load_arrays(1, {})


def begun(method: Method, config: TrainConfig = SMALL, stage: int = 1, task: int = 0) -> Learner:
    """A learner at the start of a stage of five updates."""
    learner = learner_of(method, config)
    learner.begin_stage(stage, random_windows(task=task), 5)
    return learner


# What is descended -------------------------------------------------------------------------------------------------------------


def test_the_replay_weight_multiplies_the_replay_loss() -> None:
    learner = begun(replay(Source(), SMALL), replace(SMALL, replay_weight=0.5))
    assert learner.loss_weights == (1.0, 0.5)
    assert float(learner.weighted(Losses(torch.tensor(2.0), torch.tensor(3.0)))) == 3.5  # 1 * 2 + 0.5 * 3


@pytest.mark.parametrize(("ratio", "asked"), [(0.25, [(4, {1})]), (2.0, [(32, {1})]), (0.0, [])])
def test_the_replay_ratio_is_a_share_of_the_batch_without_the_tasks_of_the_stage(ratio: float, asked: list[tuple[int, set[int]]]) -> None:
    source = Asked()
    figures = begun(replay(source, SMALL), replace(SMALL, replay_ratio=ratio), task=1).update()
    assert source.asked == asked and (figures.replay_loss is None) == (not asked)


def test_all_that_is_rehearsed_is_in_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = Learner(small_policy(("a", "b", "c")), Method("two", (Rehearse(Asked((1,))), Rehearse(Asked((0,))))), SMALL, 0)
    learner.begin_stage(3, random_windows(task=2), 5)
    batches, losses = [], learner.losses

    def kept(current: WindowBatch | None, replayed: WindowBatch | None, generator: torch.Generator) -> Losses:
        batches.append(replayed)
        return losses(current, replayed, generator)

    monkeypatch.setattr(learner, "losses", kept)
    learner.update()
    (replayed,) = batches
    assert replayed is not None and replayed.task.tolist() == [1] * 16 + [0] * 16


@pytest.mark.parametrize(
    ("make", "at_the_teacher"),
    [(lambda: replay(Source(), SMALL), True), (lambda: trust_region(Source(), SMALL, SIZE), True), (lambda: t_dgr(Source()), False)],
    ids=["replay", "trust-region", "t-dgr"],
)
def test_a_stage_starts_at_its_teacher_and_so_without_distillation_loss(make: Callable[[], Method], at_the_teacher: bool) -> None:
    """Where the target is the added noise, as in t-dgr, the loss is that of any sample."""
    learner = train(learner_of(make()), stages=1)
    learner.begin_stage(2, random_windows(task=1, seed=2), 5)
    loss = learner.update().replay_loss
    assert loss is not None and (float(loss) < 1e-10 if at_the_teacher else float(loss) > 0.1)


def test_penalties_add_up() -> None:
    class Pulls(Hook):
        def __init__(self, by: float) -> None:
            self.by = by

        def add_penalty_gradient(self, learner: Learner) -> torch.Tensor:
            return torch.tensor(self.by)

    penalty = begun(Method("two", (Pulls(1.0), Pulls(2.0)))).update().penalty
    assert penalty is not None and float(penalty) == 3.0


def test_of_three_tasks_two_thirds_are_rehearsed() -> None:
    learner = Learner(small_policy(("a", "b", "c")), replay(Asked((0, 1)), replace(SMALL, weighting="tasks-seen")), SMALL, 0)
    learner.begin_stage(3, random_windows(task=2), 5)
    assert learner.loss_weights == pytest.approx((1 / 3, 2 / 3))
    learner.begin_stage(4, random_windows(task=1), 5)  # learned again: two tasks in all
    assert learner.loss_weights == (0.5, 0.5)


def test_the_windows_go_to_the_tasks_that_have_drifted() -> None:
    assert shares_of(torch.tensor([0.03, 0.01]), 0.5).tolist() == pytest.approx([0.625, 0.375])  # the module's worked example
    assert shares_of(torch.zeros(4), 1.0).tolist() == [0.25] * 4


def test_priorities_are_carried_over_the_middle_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconverge.policy.methods.replay.MEASURED_EVERY", 2)

    def begun_stage() -> Learner:
        method = replay(ByTask((0, 1, 2)), replace(SMALL, replay_priority=0.9))
        learner = train(Learner(small_policy(("a", "b", "c")), method, SMALL, 0), stages=1)
        learner.begin_stage(2, random_windows(task=1, seed=2), 5)
        return learner

    whole, resumed = begun_stage(), begun_stage()
    for _ in range(3):
        whole.update()
    shares = whole.method.figures()
    assert set(shares) == {"replay_share.a", "replay_share.c"} and shares["replay_share.a"] != shares["replay_share.c"]
    resumed.load_underway({name: array.copy() for name, array in whole.underway().items()})
    assert resumed.method.figures() == shares
    for learner in (whole, resumed):
        learner.update()
        learner.end_stage()
    assert torch.equal(resumed.parameters.values, whole.parameters.values)


def test_losses_that_are_not_finite_change_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reconverge.policy.methods.replay.MEASURED_EVERY", 1)
    monkeypatch.setattr(Rehearse, "_replay_loss", lambda self, learner, task: torch.tensor(math.inf if task else 1.0))
    learner = Learner(small_policy(("a", "b", "c")), replay(ByTask(), replace(SMALL, replay_priority=0.5)), SMALL, 0)
    learner.begin_stage(3, random_windows(task=2), 5)
    learner.update()
    learner.update()
    assert learner.method.figures() == {}


@pytest.mark.parametrize("priority", [0.0, 1.0])
def test_a_priority_rehearses_the_task_whose_windows_the_network_has_left(priority: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher is made to answer otherwise in task 1, as if the network had drifted there and nowhere else."""
    monkeypatch.setattr("reconverge.policy.methods.replay.MEASURED_EVERY", 2)
    method = replay(ByTask(), replace(SMALL, replay_priority=priority))
    learner = Learner(small_policy(("a", "b", "c")), method, SMALL, 0)
    learner.begin_stage(3, random_windows(task=2), 5)
    learner.teacher = learner.policy.clone()
    exact = learner.teacher.predict_noise
    in_task_1 = lambda condition: condition[:, -2, None, None]  # noqa: E731
    monkeypatch.setattr(learner.teacher, "predict_noise", lambda noisy, step, condition: exact(noisy, step, condition) + 100 * in_task_1(condition))
    asked = []
    for _ in range(3):
        learner.update()
        batch = method.hooks[0].replay_batch(learner, 16, learner.stream("replay"))
        assert batch is not None
        asked.append(batch.task.tolist().count(1))
    assert asked[:2] == [8, 8]  # in equal parts until it is measured, after two updates
    assert asked[2] == (8 if priority == 0 else 16)


def test_t_dgr_weighs_by_the_tasks_seen() -> None:
    assert begun(t_dgr(Source()), stage=2, task=1).loss_weights == (0.5, 0.5)


def test_a_stage_of_two_tasks_has_two_current_tasks() -> None:
    learner = learner_of(finetune())
    learner.begin_stage(2, WindowTable.union([random_windows(task=0), random_windows(task=1)]), 5)
    assert learner.current_tasks == {0, 1}


def test_every_stage_has_draws_of_its_own() -> None:
    learner = learner_of(finetune(), seed=3)
    for stage in (1, 2):
        learner.begin_stage(stage, random_windows(), 5)
        assert learner.streams == RandomStreams(3, stage)


# Steps and averages ------------------------------------------------------------------------------------------------------------


def test_the_average_by_hand() -> None:
    """Decay 0.99: 0.99 theta_0 + 0.01 theta_1, then 0.9801 theta_0 + 0.0099 theta_1 + 0.01 theta_2."""
    learner = begun(finetune())
    assert learner.policy.config.ema_decay == 0.99
    start = learner.parameters.values.clone()
    learner.update()
    one = learner.parameters.values.clone()
    assert torch.allclose(learner.averaged, 0.99 * start + 0.01 * one, atol=1e-7) and not torch.equal(learner.averaged, one)
    learner.update()
    assert torch.allclose(learner.averaged, 0.9801 * start + 0.0099 * one + 0.01 * learner.parameters.values, atol=1e-6)


def test_what_acts_within_a_stage_is_the_average() -> None:
    learner = begun(finetune())
    for _ in range(3):
        learner.update()
    acting = torch.cat([parameter.detach().flatten() for parameter in learner.acting_policy().denoiser.parameters()])
    assert torch.equal(acting, learner.averaged) and not torch.equal(acting, learner.parameters.values)


def test_gradients_are_clipped_to_the_norm_that_is_asked_for() -> None:
    learner = begun(finetune(), replace(SMALL, optimizer=OptimizerConfig(max_gradient_norm=0.01)))
    learner.update()
    assert float(learner.parameters.gradient.norm()) == pytest.approx(0.01, rel=1e-3)


def test_the_schedule_ends_with_the_updates_of_the_stage() -> None:
    learner = learner_of(finetune(), replace(SMALL, updates=1000))
    learner.begin_stage(1, random_windows(), 4)
    rates = [learner.update().learning_rate for _ in range(4)]
    assert learner.optimizer.learning_rate == pytest.approx(0, abs=1e-12)
    assert rates[-1] < 0.3e-3  # of 1e-3: (1 + cos(0.722 pi)) / 2 = 0.178


# Logs --------------------------------------------------------------------------------------------------------------------------


def test_a_row_names_every_figure() -> None:
    figures = UpdateFigures(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0), torch.tensor(4.0), 0.5)
    assert figures.row() == {"loss": 1.0, "replay_loss": 2.0, "penalty": 3.0, "gradient_norm": 4.0, "learning_rate": 0.5}


def test_the_figures_of_the_method_are_in_the_row() -> None:
    config = replace(SMALL, trust_region=TrustRegionConfig(form="functional", radius=0.1))
    learner = begun(trust_region(Source(), config, 0), config)
    assert learner.log_row(learner.update())["radius"] == 0.1


def test_the_largest_norm_is_since_the_last_row_and_before_clipping() -> None:
    class Scale(Hook):
        by = 1e6

        def adjust_gradients(self, learner: Learner) -> None:
            learner.parameters.gradient.mul_(self.by)

    hook = Scale()
    learner = begun(Method("scale", (hook,)))
    row = learner.log_row(learner.update())
    assert row["largest_gradient_norm"] == row["gradient_norm"] > 100  # type: ignore[operator]
    hook.by = 1.0
    row = learner.log_row(learner.update())
    assert row["largest_gradient_norm"] == row["gradient_norm"] < 100  # type: ignore[operator]


def test_the_largest_norm_goes_through_a_save_in_the_middle_of_a_stage() -> None:
    whole, resumed = begun(finetune()), begun(finetune())
    for _ in range(3):
        whole.update()
    resumed.load_underway({name: array.copy() for name, array in whole.underway().items()})
    row, again = (learner.log_row(learner.update()) for learner in (whole, resumed))
    assert row == again and row["largest_gradient_norm"] > row["gradient_norm"]  # type: ignore[operator]


# The trust region at work ------------------------------------------------------------------------------------------------------


def test_the_dual_ascent_of_the_functional_form_by_hand() -> None:
    """beta starts at the replay weight and is multiplied by exp(0.02 (loss / radius - 1)), of which the exponent is at most 0.04."""
    hook = FunctionalTrustRegion(TrustRegionConfig(form="functional", radius=0.5))
    learner = SimpleNamespace(config=replace(SMALL, replay_weight=2.0))
    hook.on_stage_start(learner)  # type: ignore[arg-type]
    assert learner.loss_weights == (1.0, 2.0)
    for loss, beta in ((0.5, 2.0), (1.0, 2 * math.exp(0.02)), (100.0, 2 * math.exp(0.06)), (0.0, 2 * math.exp(0.04))):
        learner.last_losses = Losses(torch.tensor(0.0), torch.tensor(loss))
        hook.adjust_step(learner, torch.zeros(1))  # type: ignore[arg-type]
        assert hook.weight == pytest.approx(beta) and learner.loss_weights == (1.0, hook.weight)


def test_the_fisher_rests_on_as_many_draws_as_asked() -> None:
    config = replace(SMALL, trust_region=TrustRegionConfig(draws=48))
    learner = train(learner_of(ewc(config.trust_region, SIZE), config), stages=1)
    (figures,) = learner.method.fisher_figures()
    assert figures["draws"] == 48


@pytest.mark.parametrize("form", ["penalty", "constraint"])
def test_the_log_says_how_far_was_travelled_from_each_optimum(form: str) -> None:
    config = replace(SMALL, trust_region=TrustRegionConfig(strength=0.0, form=form, radius=1e9))  # type: ignore[arg-type]
    learner = learner_of(ewc(config.trust_region, SIZE), config)
    optima = []
    for stage in (1, 2, 3):
        learner.begin_stage(stage, random_windows(task=stage % 2, seed=stage), 3)
        for _ in range(3):
            learner.update()
        if stage < 3:
            learner.end_stage()
            optima.append(learner.parameters.values.clone())
    region = learner.method.hooks[0].region  # type: ignore[attr-defined]
    moved = torch.stack([learner.parameters.values - optimum for optimum in optima])
    terms = 0.5 * region.curvature * (region.mu * moved).sum(1).square()
    figures = learner.method.figures()
    assert (figures["travelled.1"], figures["travelled.2"]) == pytest.approx(terms.tolist(), rel=1e-3) and min(terms) > 0
    assert figures["travelled"] == figures["travelled.1"] + figures["travelled.2"]


def test_a_diagonal_region_keeps_every_optimum() -> None:
    """The merged quadratic leaves a rest where the optima differ, and its centre lies between them."""
    learner = train(learner_of(METHODS["diagonal"]()))
    region = learner.method.hooks[0].region  # type: ignore[attr-defined]
    assert region.rest > 0 and not torch.equal(region.centre, learner.parameters.values)
