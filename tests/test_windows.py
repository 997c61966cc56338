import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs.episodes import Episode
from reconverge.policy.windows import WindowTable


def episode(steps: int) -> Episode:
    """o_k = k and a_k = k / 100, so that a window shows where it came from."""
    observations = np.arange(steps + 1, dtype=np.float32)[:, None]
    actions = np.arange(steps, dtype=np.float32)[:, None] / 100
    return Episode("t", 0, observations, actions, np.zeros(steps, bool))


def table(steps: int, **sizes: int) -> WindowTable:
    settings = {"window": 2, "horizon": 4, "past_actions": 0, "episode_horizon": 10, **sizes}
    return WindowTable.from_episodes([episode(steps)], 3, **settings)


def test_the_trace_in_the_modules_first_lines() -> None:
    windows = table(5).all()
    assert windows.observations[0].flatten().tolist() == [0, 0]
    assert (100 * windows.actions[0]).flatten().round().tolist() == [0, 1, 2, 3]
    assert windows.observations[3].flatten().tolist() == [2, 3]
    assert (100 * windows.actions[3]).flatten().round().tolist() == [3, 4, 4, 4]
    assert windows.task.tolist() == [3] * 5


def test_past_actions_start_the_chunk_earlier() -> None:
    assert (100 * table(5, past_actions=1).all().actions[3]).flatten().round().tolist() == [2, 3, 4, 4]


def test_times_are_shares_of_the_tasks_horizon() -> None:
    assert torch.allclose(table(5).times, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]))


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.data())
def test_every_window_holds_its_own_step(steps: int, window: int, horizon: int, data: st.DataObject) -> None:
    past = data.draw(st.integers(0, horizon - 1))
    windows = table(steps, window=window, horizon=horizon, past_actions=past).all()
    assert windows.observations.shape == (steps, window, 1) and windows.actions.shape == (steps, horizon, 1)
    assert windows.observations[:, -1, 0].tolist() == list(range(steps))
    assert torch.allclose(100 * windows.actions[:, past, 0], torch.arange(steps).float(), atol=1e-4)


def test_a_union_is_one_table_after_the_other_and_of_one_table_no_copy() -> None:
    one, other = table(5), table(3)
    both = WindowTable.union([one, other])
    assert both.all().observations[:, -1, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert torch.equal(both.times, torch.cat([one.times, other.times]))
    assert WindowTable.union([one]).all().observations.data_ptr() == one.all().observations.data_ptr()


def test_a_draw_depends_on_its_generator_only() -> None:
    rows = [table(9).draw(20, torch.Generator().manual_seed(seed)).observations for seed in (1, 1, 2)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])
