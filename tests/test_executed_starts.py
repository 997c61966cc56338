"""Starts that are executed, and windows to look at: what is set is what was shown, and what cannot be is not counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from reconverge.envs.errors import NoSuchStart
from reconverge.envs.point_reach import PointReachEnv, PointReachExpert
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task, make_env
from reconverge.eval import executed_starts
from reconverge.eval.executed_starts import Executed, executable, execute, nearest_in_time
from reconverge.eval.plots import png, svg
from reconverge.eval.window_picture import strokes, window_picture

REACH = find_task("point-reach-1")
OTHER = replace(REACH, name="gym:Other-v0", family="gym")


class Acting:
    """A policy that acts as the expert of a task, whatever it is asked for."""

    def __init__(self, task: Task) -> None:
        self.expert = PointReachExpert(task)

    def reset(self) -> None:
        pass

    def select_action(self, observations: np.ndarray, task: Task, seed: int) -> np.ndarray:
        return np.stack([self.expert.act(observation) for observation in observations])


def shown(count: int) -> np.ndarray:
    random = np.random.default_rng(0)
    angle = random.uniform(0, 2 * np.pi, count)
    return np.concatenate([random.uniform(-0.5, 0.5, (count, 2)), 0.8 * np.stack([np.cos(angle), np.sin(angle)], 1)], 1)


def test_the_right_policy_succeeds_from_every_start_and_the_wrong_one_from_few() -> None:
    right: Any = Acting(REACH)
    wrong: Any = Acting(find_task("point-reach-3"))
    assert execute(right, REACH, shown(20), 0) == Executed(20, 20, 20, 0.0)
    assert execute(wrong, REACH, shown(20), 0).successes <= 4
    assert execute(right, REACH, shown(0), 0) == Executed(0, 0, 0, None)


def test_an_episode_that_breaks_ends_without_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a broken simulator shows may be NaN, on which no policy can act."""

    class Breaking(PointReachEnv):
        def step(self, action: Any) -> Any:
            observation, *rest, info = super().step(action)
            return (observation, *rest, info) if self._goal[0] > 0 else (observation * np.nan, *rest, {"success": False, "invalid": True})

    class Picky(Acting):
        def select_action(self, observations: np.ndarray, task: Task, seed: int) -> np.ndarray:
            assert np.isfinite(observations).all()
            return super().select_action(observations, task, seed)

    monkeypatch.setattr(executed_starts, "make_env", Breaking)
    starts, picky = shown(20), Picky(REACH)
    sound = int((starts[:, 2] > 0).sum())
    found = execute(cast("Any", picky), REACH, starts, 0)
    assert (found.executed, found.successes) == (sound, sound) and 0 < sound < 20


def test_point_reach_starts_exactly_where_it_is_told() -> None:
    env, wanted = make_env(REACH), shown(1)[0]
    assert np.array_equal(env.reset(seed=3, options={"observation": wanted})[0], wanted)
    assert not np.array_equal(env.reset(seed=3)[0], wanted)  # the next episode is its seed's again


def test_which_windows_can_be_executed() -> None:
    times = torch.tensor([0.0, 0.001, 0.1, 1.0])
    assert executable(REACH, times).tolist() == [True] * 4
    assert executable(find_task("hammer"), times).tolist() == [True, True, False, False]  # of 500 steps the first
    assert executable(OTHER, times).tolist() == [False] * 4


def test_every_start_has_a_real_one_of_its_own() -> None:
    real = torch.tensor([0.0, 0.5, 0.0, 0.1, 0.0])
    assert nearest_in_time(torch.tensor([0.0, 0.45, 0.01, 0.0]), real).tolist() == [0, 1, 2, 4]
    assert sorted(nearest_in_time(torch.zeros(9), real).tolist()) == [0, 1, 2, 3, 4]
    assert len(nearest_in_time(torch.zeros(0), real)) == 0


@pytest.mark.mujoco
@pytest.mark.slow
@pytest.mark.parametrize("name", ["hammer", "push-wall", "shelf-place", "window-close"])
def test_a_meta_world_start_is_found_by_what_it_shows(name: str) -> None:
    """Hammer draws one object, push-wall object and goal, shelf-place moves what it has drawn, window-close draws a single number."""
    task = find_task(name)
    env, other = make_env(task), make_env(task)
    for seed in (5001, 5002):
        wanted, _ = env.reset(seed=seed)
        found, _ = other.reset(options={"observation": wanted.astype(np.float32)})
        if name != "window-close":  # whose first observation shows the window where it was before
            assert np.abs(found - wanted).max() < 2e-3
        action = np.array([0.3, -0.2, 0.1, 1.0])
        (wanted, *_), (found, *_) = env.step(action), other.step(action)
        assert np.abs(found - wanted)[[*range(18), 36, 37, 38]].max() < 2e-3
    before = make_env(task).reset(seed=7)[0]
    assert np.array_equal(other.reset(seed=7)[0], before)  # ordinary episodes are as ever


@pytest.mark.mujoco
@pytest.mark.slow
def test_what_meta_world_never_draws_is_not_executed() -> None:
    task = find_task("push")
    env = make_env(task)
    first, _ = env.reset(seed=1)
    on_top = first.copy()
    on_top[4:6], on_top[36:38] = [0.1, 0.7], [0.1, 0.8]  # object and goal closer than push allows
    with pytest.raises(NoSuchStart, match="no episode starts as shown"):
        env.reset(options={"observation": on_top})
    assert np.array_equal(env.reset(seed=1)[0], first)
    policy: Any = type("Still", (), {"reset": lambda self: None, "select_action": lambda self, seen, task, seed: np.zeros((len(seen), 4))})()
    found = execute(policy, task, np.stack([on_top, first]), 0)
    assert (found.starts, found.executed, found.successes) == (2, 1, 0)


def windows(size: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2, size))


def test_a_stroke_runs_from_the_first_observation_to_the_newest() -> None:
    real, replayed, times = windows(39, 3, 0), windows(39, 2, 1), np.linspace(0, 1, 3)
    found = strokes(2, find_task("hammer"), real, times, replayed, times[:2])
    assert [(stroke.panel, stroke.replayed) for stroke in found] == [("hand", False)] * 3 + [("hand", True)] * 2 + [("object", False)] * 3 + [
        ("object", True)
    ] * 2
    last = found[4]
    assert (last.x_first, last.y_first, last.x, last.y) == pytest.approx([*replayed[1, 0, [0, 2]], *replayed[1, 1, [0, 2]]], abs=1e-5)
    assert found[-1].x == pytest.approx(replayed[1, 1, 4], abs=1e-5) and found[1].time == 0.5


def test_other_tasks_are_seen_along_their_principal_components() -> None:
    real = np.zeros((50, 2, 3))
    real[:, :, 1] = np.linspace(-1, 1, 50)[:, None] * 10  # all that varies
    found = strokes(1, OTHER, real, np.zeros(50), real[:5], np.zeros(5))
    assert np.ptp([stroke.x for stroke in found]) == pytest.approx(20) and np.ptp([stroke.y for stroke in found]) == pytest.approx(0)


def test_the_picture_has_a_pair_of_axes_per_panel_and_the_same_bytes_each_time() -> None:
    found = strokes(2, find_task("hammer"), windows(39, 9, 0), np.zeros(9), windows(39, 9, 1), np.ones(9))
    found += strokes(3, OTHER, windows(3, 9, 2), np.zeros(9), windows(3, 9, 3), np.ones(9))
    figure, again = window_picture(found), window_picture(found)
    assert figure is not None and again is not None
    titles = [axes.get_title("left") for axes in figure.axes]
    assert [title for title in titles if title] == [
        "hand, real", "hand, replayed", "object, real", "object, replayed", "principal components, real", "principal components, replayed",
    ]  # fmt: skip
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    assert svg(figure) == svg(again) and png(figure)[:4] == b"\x89PNG"
    assert window_picture([]) is None
