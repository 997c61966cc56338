"""Places seen from the first object: a worked example, undone exactly, and a generator that knows better where things touch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs.task import ObservationLayout
from reconverge.envs.tasks import find_task
from reconverge.policy.random_streams import RandomStreams
from reconverge.replay.config import GeneratorConfig
from reconverge.replay.relative_places import to_absolute, to_relative
from reconverge.replay.trajectory_generator import TrajectoryGenerator
from reconverge.replay.window_code import WindowCode

REACH = ObservationLayout(frame=(0, 9), constant=(9, 12), positions=(0, 3, 6, 9))
"""Hand, object, second object, goal."""
SMALL = GeneratorConfig(width=64, blocks=2, timesteps=50, sampling_steps=10, updates=400, batch_size=128)


def test_a_worked_example() -> None:
    code = torch.tensor([[0.60, 0.0, 0.0, 0.57, 0.0, 0.0, 0.80, 0.0, 0.0]])
    relative = to_relative(code, (0, 3, 6), 0.05)
    assert relative[0, [0, 3, 6]].tolist() == pytest.approx([0.569, 0.57, 2.231], abs=1e-3)
    assert torch.allclose(to_absolute(relative, (0, 3, 6), 0.05), code)


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.05, 1.0]), st.integers(2, 4))
def test_it_is_undone(seed: int, scale_m: float, positions: int) -> None:
    code = torch.rand(5, 20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5
    places = (0, 4, 11, 17)[:positions]
    there = to_relative(code, places, scale_m)
    assert torch.allclose(to_absolute(there, places, scale_m), code, atol=1e-9)
    assert torch.equal(there[:, 4:7], code[:, 4:7]) and torch.equal(there[:, 3], code[:, 3])


def test_the_places_of_metaworld_are_hand_objects_and_goal() -> None:
    assert WindowCode(find_task("hammer-v3").layout, 2).places == (0, 4, 11, 54)
    assert WindowCode(replace(REACH, positions=()), 2).places == ()


def approach(count: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows of a hand that closes on an object, from 30 cm to within 2 mm; the object lies anywhere on a table, the second is absent."""
    generator = torch.Generator().manual_seed(0)
    times = torch.rand(count, generator=generator)
    thing, goal = torch.rand(count, 3, generator=generator), torch.rand(count, 3, generator=generator)
    apart = torch.stack([0.3 * (1 - times), torch.zeros(count), torch.zeros(count)], 1) + 0.002 * torch.randn(count, 3, generator=generator)
    frames = [torch.cat([thing + apart + back, thing, torch.zeros(count, 3), goal], 1) for back in (0.01, 0.0)]
    return torch.stack(frames, 1), times


def generated(scale_m: float) -> tuple[torch.Tensor, torch.Tensor]:
    observations, times = approach()
    generator = TrajectoryGenerator(replace(SMALL, touch_scale_m=scale_m), WindowCode(REACH, 2), tasks=1, seed=0)
    generator.learn(0, observations, times, [], RandomStreams(0, 1))
    again = TrajectoryGenerator(replace(SMALL, touch_scale_m=scale_m), WindowCode(REACH, 2), tasks=1, seed=1)
    again.load_arrays(generator.arrays())
    return again.generate(0, 400, "a")


def test_it_is_told_finely_where_things_touch() -> None:
    def miss(observations: torch.Tensor, times: torch.Tensor) -> float:
        """How far hand and object are from where they are to each other at the end of real windows, in m."""
        late = observations[times > 0.95, -1]
        apart = late[:, :3] - late[:, 3:6]
        return float(torch.linalg.vector_norm(apart - torch.tensor([0.0075, 0.0, 0.0]), dim=1).mean())

    absolute, relative, real = miss(*generated(0.0)), miss(*generated(0.05)), miss(*approach())
    assert real < 0.01 and relative < 0.5 * absolute


def test_what_is_generated_stays_within_what_was_shown() -> None:
    observations, _ = generated(0.05)
    shown, _ = approach()
    assert torch.equal(observations[..., 6:9], torch.zeros_like(observations[..., 6:9]))  # the object that is absent
    newest, newest_shown = observations[:, -1], shown[:, -1]
    assert (newest >= newest_shown.amin(0) - 1e-6).all() and (newest <= newest_shown.amax(0) + 1e-6).all()


def test_each_task_stays_within_its_own_range() -> None:
    observations, times = approach(200)
    generator = TrajectoryGenerator(replace(SMALL, touch_scale_m=0.05, updates=2), WindowCode(REACH, 2), tasks=2, seed=0)
    for task in (1, 0):
        generator.learn(task, observations - 5.0 * task, times, [], RandomStreams(0, 1))
    assert generator.generate(0, 20, "a")[0].min() >= observations.min() - 1e-5
    assert generator.generate(1, 20, "a")[0].max() <= observations.max() - 5.0 + 1e-5


@pytest.mark.parametrize("start", [7, 10, 18])
def test_a_position_lies_within_what_is_generated(start: int) -> None:
    with pytest.raises(ValueError, match=f"begins at {start} must lie within"):
        replace(REACH, positions=(0, start))


def test_without_positions_there_is_nothing_to_relate() -> None:
    generator = TrajectoryGenerator(replace(SMALL, touch_scale_m=0.05), WindowCode(replace(REACH, positions=()), 2), tasks=1, seed=0)
    assert not generator.is_relative and "lowest" not in generator.arrays()
