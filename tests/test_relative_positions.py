import torch
from small_policy import small_policy

from reconverge.envs.tasks import find_task
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.relative_positions import relative_positions, relative_size


def test_the_example_in_the_modules_first_lines() -> None:
    observation = torch.tensor([0.60, 0.0, 0.0, 9.0, 0.57, 0.0, 0.0])
    shown = relative_positions(observation, (0, 4), (0.05, 0.01))
    assert relative_size((0, 4), (0.05, 0.01)) == len(shown) == 6
    assert torch.allclose(shown[[0, 3]], torch.tanh(torch.tensor([0.6, 3.0])), atol=1e-5)


def test_moving_everything_together_changes_nothing_in_meta_world() -> None:
    starts = find_task("hammer").layout.positions
    observations = torch.rand(5, 39)
    moved = observations.clone()
    for start in starts:
        moved[:, start : start + 3] += torch.tensor([0.1, -0.2, 0.05])
    assert relative_positions(observations, starts, (0.05,)).shape == (5, 18)
    assert torch.allclose(relative_positions(observations, starts, (0.05,)), relative_positions(moved, starts, (0.05,)), atol=1e-4)


def test_a_policy_keeps_where_its_positions_are(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plain = small_policy()
    policy = DiffusionPolicy(plain.config, plain.tasks, 7, 2, type(plain.normalizer)(torch.zeros(7), torch.ones(7)), 0, positions=(0, 4))
    policy.save(tmp_path / "policy")
    loaded = DiffusionPolicy.load(tmp_path / "policy")
    seen, task = torch.rand(3, 2, 7), torch.zeros(3, dtype=torch.int64)
    assert loaded.positions == (0, 4) and torch.equal(policy.condition(seen, task), loaded.condition(seen, task))
    assert policy.condition(seen, task).shape == (3, 2 * (7 + 6) + 2)
