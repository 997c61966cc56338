import torch
from small_policy import small_policy

from reconverge.envs.task import ObservationLayout
from reconverge.envs.tasks import find_task
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fine_features import fine_features, fine_size

HAND_AND_PEG = ObservationLayout(frame=(0, 7), positions=(0, 4), openings=(3,))


def test_the_example_in_the_modules_first_lines() -> None:
    shown = fine_features(torch.tensor([0.60, 0.0, 0.0, 0.5, 0.57, 0.0, 0.0]), HAND_AND_PEG)
    assert len(shown) == fine_size(HAND_AND_PEG) == 6 + 8
    assert torch.allclose(shown[[0, 3]], torch.tanh(torch.tensor([0.6, 3.0])), atol=1e-5)
    assert torch.allclose(shown[6:10], torch.tensor([1.0, 0.0, 0.0, 0.0]), atol=1e-5)  # sines of pi/2, pi, 2 pi, 4 pi


def test_moving_everything_together_changes_nothing_in_meta_world() -> None:
    layout = find_task("hammer").layout
    observations = torch.rand(5, 39)
    moved = observations.clone()
    for start in (*layout.positions, 18, 22, 29):  # the previous frame moves too
        moved[:, start : start + 3] += torch.tensor([0.1, -0.2, 0.05])
    assert fine_features(observations, layout).shape == (5, fine_size(layout))
    assert torch.allclose(fine_features(observations, layout), fine_features(moved, layout), atol=1e-3)


def test_a_task_that_declares_nothing_is_shown_nothing_more() -> None:
    assert fine_size(ObservationLayout(frame=(0, 5))) == 0
    assert fine_features(torch.rand(2, 5), ObservationLayout(frame=(0, 5))).shape == (2, 0)


def test_a_policy_keeps_its_layout(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plain = small_policy()
    policy = DiffusionPolicy(plain.config, plain.tasks, 7, 2, type(plain.normalizer)(torch.zeros(7), torch.ones(7)), 0, HAND_AND_PEG)
    policy.save(tmp_path / "policy")
    loaded = DiffusionPolicy.load(tmp_path / "policy")
    seen, task = torch.rand(3, 2, 7), torch.zeros(3, dtype=torch.int64)
    assert loaded.layout == HAND_AND_PEG and torch.equal(policy.condition(seen, task), loaded.condition(seen, task))
    assert policy.condition(seen, task).shape == (3, 2 * (7 + 14) + 2)
