"""The window code, the trajectory generator and the two sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policy import DO, random_windows, small_policy

from reconverge.envs.errors import TrainingDiverged
from reconverge.envs.task import ObservationLayout
from reconverge.policy.diffusion import Diffusion
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.optimizer import StageOptimizer
from reconverge.policy.random_streams import RandomStreams
from reconverge.policy.windows import WindowBatch, WindowTable
from reconverge.replay import trajectory_generator
from reconverge.replay.config import GeneratorConfig, ReplayConfig
from reconverge.replay.generated_windows import GeneratedWindows
from reconverge.replay.source import ReplaySource, WindowPools
from reconverge.replay.stored_windows import StoredWindows
from reconverge.replay.trajectory_generator import TrajectoryGenerator
from reconverge.replay.window_code import WindowCode

STACKED = ObservationLayout(frame=(0, 2), previous=(2, 4), constant=(4, 5))
PLAIN = ObservationLayout(frame=(0, DO))
SMALL = GeneratorConfig(width=64, blocks=2, timesteps=50, sampling_steps=10, updates=500, batch_size=128)


def stacked_windows(count: int = 200, spread: float = 0.05) -> WindowTable:
    """Windows of To = 2 observations [frame 2 | previous frame 2 | goal 1] of points that walk to the right."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(count, generator=generator)
    x = times + spread * torch.randn(count, generator=generator)
    frames = [torch.stack([x - 0.01 * back, 2 * x - 0.02 * back], dim=1) for back in range(3)]
    goal = torch.full((count, 1), 0.7)
    observations = torch.stack([torch.cat([frames[1], frames[2], goal], 1), torch.cat([frames[0], frames[1], goal], 1)], dim=1)
    return WindowTable(WindowBatch(observations, torch.zeros(count, 4, 2), torch.zeros(count, dtype=torch.int64)), times)


def test_a_window_of_metaworld_is_57_numbers() -> None:
    layout = ObservationLayout(frame=(0, 18), previous=(18, 36), constant=(36, 39))
    assert WindowCode(layout, window=2).size == 3 * 18 + 3


def test_code_of_a_worked_window() -> None:
    """Frames 1, 3, 6 and goal 9: newest frame 6, steps 3 and 2, goal."""
    layout = ObservationLayout(frame=(0, 1), previous=(1, 2), constant=(2, 3))
    code = WindowCode(layout, window=2)
    window = torch.tensor([[[3.0, 1.0, 9.0], [6.0, 3.0, 9.0]]])
    assert code.encode(window).tolist() == [[6, 3, 2, 9]]
    assert code.decode(torch.tensor([[6.0, 3.0, 2.0, 9.0]])).equal(window)


@given(st.integers(1, 4), st.booleans(), st.integers(0, 10_000))
def test_whatever_is_generated_decodes_to_a_consistent_window(window: int, stacked: bool, seed: int) -> None:
    code = WindowCode(STACKED if stacked else PLAIN, window)
    numbers = torch.randn(3, code.size, generator=torch.Generator().manual_seed(seed))
    observations = code.decode(numbers)
    if stacked:
        assert torch.equal(observations[:, 1:, 2:4], observations[:, :-1, 0:2])  # the previous frame is the frame before
        assert torch.equal(observations[:, :, 4], observations[:, :1, 4].expand(-1, window))  # the goal stays
    assert torch.allclose(code.encode(observations), numbers, atol=1e-5)


def trained_generator() -> TrajectoryGenerator:
    windows = stacked_windows()
    generator = TrajectoryGenerator(SMALL, WindowCode(STACKED, 2), tasks=2, seed=0)
    generator.learn(0, windows.all().observations, windows.times, [], RandomStreams(0, 1))
    return generator


def test_generated_windows_follow_the_task_and_the_time() -> None:
    observations, times = trained_generator().generate(0, 400, "a")
    x = observations[:, -1, 0]
    assert float((x - times).abs().mean()) < 0.15  # real windows: 0.04
    assert float((observations[:, -1, 1] - 2 * x).abs().mean()) < 0.1
    assert times.min() < 0.1 and times.max() > 0.9


def test_numbers_that_never_vary_come_out_exactly() -> None:
    observations, _ = trained_generator().generate(0, 50, "a")
    assert torch.allclose(observations[..., 4], torch.tensor(0.7), atol=1e-6)


def test_a_generator_that_diverges_is_not_kept() -> None:
    generator = TrajectoryGenerator(GeneratorConfig(width=8, blocks=1, updates=5, learning_rate=1e30), WindowCode(STACKED, window=2), 2, seed=0)
    windows = stacked_windows(16)
    with pytest.raises(TrainingDiverged, match="the generator's weights are not finite after learning task 0 in stage 1"):
        generator.learn(0, windows.all().observations, windows.times, [], RandomStreams(0, 1))


def test_every_task_has_the_same_weight_in_the_generators_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third task beside two earlier ones, whose windows are generated again: a third of every batch each."""
    seen, original = torch.zeros(3), trajectory_generator._draw

    def draw(*of: Any) -> tuple[torch.Tensor, torch.Tensor]:
        clean, condition = original(*of)
        seen.add_(condition[:, :3].sum(0))
        return clean, condition

    monkeypatch.setattr(trajectory_generator, "_draw", draw)
    windows = stacked_windows(64)
    observations, times = windows.all().observations, windows.times
    generator = TrajectoryGenerator(GeneratorConfig(width=8, blocks=1, updates=50, batch_size=120), WindowCode(STACKED, window=2), 3, seed=0)
    for task in (0, 1):
        generator.learn(task, observations, times, [], RandomStreams(0, 1 + task))
    seen.zero_()
    generator.learn(2, observations, times, [(task, observations, times) for task in (0, 1)], RandomStreams(0, 3))
    assert seen.sum() == 50 * 120 and seen[2] == 50 * 40 and float((seen / seen.sum() - 1 / 3).abs().max()) < 0.03


def test_a_new_task_is_learned_beside_more_earlier_ones_than_a_batch_has_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, original = [], trajectory_generator._draw
    monkeypatch.setattr(trajectory_generator, "_draw", lambda pools, of, generator: counts.append(of) or original(pools, of, generator))
    windows, generator = random_windows(), TrajectoryGenerator(GeneratorConfig(8, 1, updates=2, batch_size=3), WindowCode(PLAIN, 2), 5, seed=0)
    earlier = [(task, windows.all().observations, windows.times) for task in range(4)]
    generator.learn(4, windows.all().observations, windows.times, earlier, RandomStreams(0, 5))
    assert counts == [[1, 2], [1, 2]]


def plain_generator(updates: int, tasks: int = 2) -> TrajectoryGenerator:
    return TrajectoryGenerator(GeneratorConfig(width=16, blocks=1, updates=updates, batch_size=8), WindowCode(PLAIN, 2), tasks, seed=0)


def learn_plain(generator: TrajectoryGenerator, windows: WindowTable, times: torch.Tensor | None = None) -> None:
    generator.learn(0, windows.all().observations, windows.times if times is None else times, [], RandomStreams(0, 1))


def test_the_generator_keeps_the_average_of_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two updates: the newest weights count 1 - 1/11 and 1 - 2/12."""
    values = []

    class Watched(StageOptimizer):
        def __init__(self, parameters: FlatParameters, *rest: Any) -> None:
            super().__init__(parameters, *rest)
            self.watched = parameters
            values.append(parameters.values.clone())

        def step(self, *given: Any) -> None:
            super().step(*given)
            values.append(self.watched.values.clone())

    monkeypatch.setattr(trajectory_generator, "StageOptimizer", Watched)
    generator = plain_generator(updates=2)
    learn_plain(generator, random_windows(20))
    average = values[0].lerp(values[1], 10 / 11).lerp(values[2], 10 / 12)
    kept = torch.cat([parameter.detach().flatten() for parameter in generator.denoiser.parameters()])
    assert torch.allclose(kept, average, atol=1e-6)


def test_every_update_of_the_generator_has_noise_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    noises, original = [], Diffusion.draw

    def draw(*given: Any) -> tuple[torch.Tensor, torch.Tensor]:
        timestep, noise = original(*given)
        noises.append(noise)
        return timestep, noise

    monkeypatch.setattr(Diffusion, "draw", draw)
    learn_plain(plain_generator(updates=2), random_windows(20))
    assert len(noises) == 2 and not torch.equal(*noises)


def test_what_is_far_from_all_else_is_learned_as_six_standard_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    pools, original = [], trajectory_generator._draw

    def draw(*of: Any) -> tuple[torch.Tensor, torch.Tensor]:
        pools.extend(of[0])
        return original(*of)

    monkeypatch.setattr(trajectory_generator, "_draw", draw)
    windows = random_windows(200)
    windows.all().observations[7, -1] = 100.0  # of 200 numbers: the spread is 100 / sqrt(200), so it lies 14 of them away
    learn_plain(plain_generator(updates=1), windows)
    ((clean, _),) = pools
    assert clean[7].tolist() == [6.0] * 10 and clean.abs().max() == 6.0


def test_generated_times_are_spread_as_those_of_the_task() -> None:
    """One in every tenth of times from 0 to 1; and where the last of 65 windows alone is not at 0, only the last two of 128 are not."""
    generator, windows = plain_generator(updates=1), random_windows(65)
    learn_plain(generator, windows)
    assert (10 * generator.generate(0, 10, "a")[1]).long().tolist() == list(range(10))
    learn_plain(generator, windows, (windows.times == 1).float())
    _, times = generator.generate(0, 128, "a")
    assert times[:126].max() == 0 < times[126] < 0.5 < times[127]


def test_windows_generated_for_one_time_differ() -> None:
    generator = plain_generator(updates=2)
    learn_plain(generator, random_windows(20), torch.full((20,), 0.5))
    observations, times = generator.generate(0, 6, "a")
    assert times.tolist() == [0.5] * 6 and len(observations.flatten(1).unique(dim=0)) == 6


def test_generation_is_a_function_of_its_words() -> None:
    generator = trained_generator()
    first, again, other = (generator.generate(0, 5, words)[0] for words in ("a", "a", "b"))
    assert torch.equal(first, again) and not torch.equal(first, other)


def generated_source(pool: str, label_temperature: float = 1.0) -> GeneratedWindows:
    generator = GeneratorConfig(width=16, blocks=1, sampling_steps=2, updates=3, batch_size=8)
    config = ReplayConfig(pool=pool, windows_per_task=32, generator=generator, label_temperature=label_temperature)  # type: ignore[arg-type]
    return GeneratedWindows(config, TrajectoryGenerator(config.generator, WindowCode(PLAIN, 2), tasks=2, seed=0))


def end_stage(source: ReplaySource, task: int, windows: WindowTable, teacher: DiffusionPolicy, streams: RandomStreams) -> None:
    source.learn(task, windows, streams, lambda n: None)
    source.refill(task, windows, teacher, streams)


def test_the_generator_source_keeps_no_past_data() -> None:
    source = generated_source("freshest")
    assert source.draw(4, torch.Generator()) is None
    windows = random_windows(task=0)
    end_stage(source, 0, windows, small_policy(), RandomStreams(0, 1))
    batch = source.draw(10, torch.Generator().manual_seed(0))
    assert batch is not None and len(batch) == 10
    assert batch.observations.shape == (10, 2, DO) and batch.actions.abs().max() <= 1
    assert not any(item.past_task_data for item in source.ledger())
    real = {tuple(row.flatten().tolist()) for row in windows.all().observations}
    assert not any(tuple(row.flatten().tolist()) in real for row in source.pools[0].all().observations)


class Told:
    """A generator that keeps what it was told, and generates windows that are all alike."""

    bytes = 7

    def __init__(self) -> None:
        self.learned: list[tuple[int, list[int]]] = []
        self.generated: list[tuple[int, int, tuple[object, ...]]] = []

    def learn(self, task: int, observations: torch.Tensor, times: torch.Tensor, earlier: Sequence[tuple[int, Any, Any]], *rest: object) -> None:
        self.learned.append((task, [each[0] for each in earlier]))

    def generate(self, task: int, count: int, *words: object) -> tuple[torch.Tensor, torch.Tensor]:
        self.generated.append((task, count, words))
        return torch.full((count, 2, DO), float(task)), torch.linspace(0, 1, count)

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def arrays_knowing(self, tasks: int) -> dict[str, np.ndarray]:
        return {}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        pass


@pytest.mark.parametrize(("pool", "again"), [("freshest", []), ("redrawn", [0])])
def test_the_generator_is_told_of_the_earlier_tasks_only_where_their_pools_are_redrawn(pool: str, again: list[int]) -> None:
    told = Told()
    source = GeneratedWindows(ReplayConfig(pool=pool, windows_per_task=6), told)  # type: ignore[arg-type]
    for stage in (1, 2):
        end_stage(source, stage - 1, random_windows(task=stage - 1), small_policy(), RandomStreams(5, stage))
    assert told.learned == [(0, []), (1, again)]
    assert told.generated == [(0, 6, (5, 1)), *((task, 6, (5, 2)) for task in [*again, 1])]


def test_every_window_of_a_pool_is_labelled_with_noise_of_its_own() -> None:
    source = GeneratedWindows(ReplayConfig(windows_per_task=6), Told())
    end_stage(source, 0, random_windows(), small_policy(), RandomStreams(0, 1))
    assert len(source.pools[0].all().actions.flatten(1).unique(dim=0)) == 6


def test_labels_made_in_parts_are_those_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []
    for at_once in (4096, 7):
        monkeypatch.setattr("reconverge.replay.generated_windows.LABELLED_AT_ONCE", at_once)
        source = generated_source("freshest")
        end_stage(source, 0, random_windows(), small_policy(), RandomStreams(0, 1))
        pools.append(source.pools[0].all().actions)
    assert torch.allclose(*pools, atol=1e-5)


def test_a_pool_is_labelled_with_all_that_the_teacher_knows_however_it_acts() -> None:
    """A teacher that always acts in the likeliest way still rehearses the distribution."""
    pools = []
    for temperature in (0.0, 1.0):
        source = generated_source("freshest")
        end_stage(source, 0, random_windows(task=0), small_policy(temperature=temperature), RandomStreams(0, 1))
        pools.append(source.pools[0].all().actions)
    assert torch.equal(*pools)


def test_at_temperature_0_a_pool_is_labelled_with_what_the_teacher_would_do_at_0() -> None:
    source, teacher = generated_source("freshest", label_temperature=0.0), small_policy()
    end_stage(source, 0, random_windows(task=0), teacher, RandomStreams(0, 1))
    pool = source.pools[0].all()
    acted = teacher.acting_with(temperature=0.0).sample_chunk(pool.observations, pool.task, [torch.Generator()] * len(pool))
    assert torch.allclose(pool.actions, acted, atol=1e-5)


def test_a_freshest_pool_stays_and_a_redrawn_one_is_made_again() -> None:
    for pool, stays in (("freshest", True), ("redrawn", False)):
        source = generated_source(pool)
        end_stage(source, 0, random_windows(task=0), small_policy(), RandomStreams(0, 1))
        before = source.pools[0].all().observations.clone()
        end_stage(source, 1, random_windows(task=1, seed=1), small_policy(seed=1), RandomStreams(0, 2))
        assert torch.equal(before, source.pools[0].all().observations) == stays
        batch = source.draw(200, torch.Generator().manual_seed(0))
        assert batch is not None and 60 < int((batch.task == 0).sum()) < 140  # equal shares


def test_stored_windows_are_real_and_the_ledger_says_so() -> None:
    source = StoredWindows(ReplayConfig(windows_per_task=10))
    windows = random_windows()
    end_stage(source, 0, windows, small_policy(), RandomStreams(0, 1))
    (item,) = source.ledger()
    assert item.past_task_data and item.bytes == 4 * 10 * (2 * DO + 4 * 2 + 1)
    real = {tuple(row.flatten().tolist()) for row in windows.all().observations}
    assert all(tuple(row.flatten().tolist()) in real for row in source.pools[0].all().observations)


def test_stored_windows_keep_their_times() -> None:
    source, windows = StoredWindows(ReplayConfig(source="stored", windows_per_task=10)), random_windows()
    end_stage(source, 0, windows, small_policy(), RandomStreams(0, 1))
    kept = source.pools[0].all().observations
    rows = [int((windows.all().observations == window).all(dim=(1, 2)).nonzero()) for window in kept]
    assert torch.equal(source.pools[0].times, windows.times[rows])


def test_every_window_of_every_pool_is_drawn() -> None:
    """Windows 0 to 2 of task 2, 3 to 7 of task 0, 8 and 9 of task 1."""
    pools = WindowPools()
    numbers = {2: [0, 1, 2], 0: [3, 4, 5, 6, 7], 1: [8, 9]}
    for task, held in numbers.items():
        values = torch.tensor(held, dtype=torch.float32)[:, None, None]
        pools.put({task: WindowTable(WindowBatch(values, values, torch.full((len(held),), task)), torch.zeros(len(held)))})
    drawn = pools.draw(2000, torch.Generator().manual_seed(0))
    assert drawn is not None
    assert {task: drawn.observations[drawn.task == task].unique().tolist() for task in numbers} == numbers
    others = pools.draw(500, torch.Generator().manual_seed(0), {0})
    assert others is not None and others.task.unique().tolist() == [1, 2]


def test_a_task_that_is_learned_again_is_not_replayed_and_pools_have_equal_shares() -> None:
    source = StoredWindows(ReplayConfig(windows_per_task=90))
    for task, count in ((0, 10), (1, 90)):
        end_stage(source, task, random_windows(count, task), small_policy(), RandomStreams(0, task))
    draw = lambda without: source.draw(400, torch.Generator().manual_seed(0), without)  # noqa: E731
    assert 150 < int((draw(()).task == 0).sum()) < 250
    assert draw({0}).task.unique().tolist() == [1]
    assert draw({0, 1}) is None


def test_sources_go_through_a_checkpoint() -> None:
    for make in (lambda: generated_source("freshest"), lambda: StoredWindows(ReplayConfig(windows_per_task=10))):
        source, loaded = make(), make()
        end_stage(source, 0, random_windows(), small_policy(), RandomStreams(0, 1))
        loaded.load_arrays(source.arrays(), small_policy())
        first, second = (each.draw(5, torch.Generator().manual_seed(3)) for each in (source, loaded))
        assert first is not None and second is not None and torch.equal(first.observations, second.observations)


def test_pools_that_are_loaded_take_the_place_of_those_that_are_there() -> None:
    """As where a stage is begun again: what came after it is forgotten."""
    source = StoredWindows(ReplayConfig(windows_per_task=5))
    end_stage(source, 0, random_windows(task=0), small_policy(), RandomStreams(0, 1))
    before = source.arrays()
    end_stage(source, 1, random_windows(task=1), small_policy(), RandomStreams(0, 2))
    source.load_arrays(before, small_policy())
    drawn = source.draw(20, torch.Generator().manual_seed(3))
    assert list(source.tasks) == [0] and drawn is not None and set(drawn.task.tolist()) == {0}
    source.load_arrays({}, small_policy())
    assert source.draw(20, torch.Generator().manual_seed(3)) is None


def test_pools_come_back_from_a_checkpoint_in_the_order_of_their_tasks() -> None:
    source, loaded = (StoredWindows(ReplayConfig(windows_per_task=5)) for _ in range(2))
    for task in (0, 1):
        end_stage(source, task, random_windows(task=task, seed=task), small_policy(), RandomStreams(0, task + 1))
    loaded.load_arrays(source.arrays(), small_policy())
    one, other = (each.draw(20, torch.Generator().manual_seed(3)) for each in (source, loaded))
    assert one is not None and other is not None and set(one.task.tolist()) == {0, 1}
    assert torch.equal(one.observations, other.observations) and torch.equal(one.task, other.task)
