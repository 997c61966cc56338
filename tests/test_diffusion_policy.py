from pathlib import Path

import numpy as np
import pytest
import torch
from small_policy import DA, DO, small_policy

from reconverge.envs.errors import ConfigError, DamagedFile, UnknownName
from reconverge.envs.task import ObservationLayout, Task
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.normalizer import Normalizer


def test_save_and_load_give_the_same_actions(tmp_path: Path) -> None:
    policy, observations = small_policy(), np.random.default_rng(0).normal(size=(3, DO))
    policy.save(tmp_path / "policy")
    loaded = DiffusionPolicy.load(tmp_path / "policy")
    assert loaded.config == policy.config and loaded.tasks == policy.tasks
    assert np.array_equal(loaded.select_action(observations, "a"), policy.select_action(observations, "a"))


def test_a_policy_that_observes_nothing_is_saved_and_loaded_too(tmp_path: Path) -> None:
    """What generates images by class: the class is the task."""
    config = PolicyConfig(window=1, relative_scales_m=(), mlp=ResidualMLPConfig(width=16, blocks=1))
    policy = DiffusionPolicy(config, ("0", "1"), 0, 3, Normalizer(torch.zeros(0), torch.ones(0)), seed=0)
    policy.save(tmp_path / "policy")
    noise = [torch.Generator().manual_seed(number) for number in range(4)]
    first, again = (
        model.sample_chunk(torch.zeros(4, 1, 0), torch.tensor([0, 0, 1, 1]), [each.clone_state() for each in noise])
        for model in (policy, DiffusionPolicy.load(tmp_path / "policy"))
    )
    assert first.shape == (4, config.horizon, 3) and torch.equal(first, again)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    small_policy().save(tmp_path / "policy")
    weights = tmp_path / "policy" / "policy.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedFile, match="does not match its hash"):
        DiffusionPolicy.load(tmp_path / "policy")


def test_the_same_seed_gives_the_same_weights() -> None:
    first, again, other = (small_policy(seed=seed).state_dict()["denoiser.read.weight"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_making_a_policy_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    small_policy()
    assert torch.equal(torch.rand(1), expected)


def test_making_a_policy_leaves_the_generators_of_other_devices_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeded.append)
    small_policy()
    assert not seeded


def test_acting_in_another_way_is_refused_where_the_policy_was_not_trained_for_it() -> None:
    policy = small_policy(trained_timesteps="sampler")  # ddim with 4 of 20: 15, 10, 5, 0
    with pytest.raises(ConfigError, match="ddim asks at timesteps 4, 8, 12, 16, and this policy was trained at 0, 5, 10, 15 alone"):
        policy.acting_with(sampling_steps=5)
    with pytest.raises(ConfigError, match=r"sampling_steps is 21; ddim takes 1 to 20 of 20"):
        small_policy().acting_with(sampling_steps=21)


def test_acting_with_fewer_steps_changes_nothing_of_where_it_was_trained() -> None:
    fewer = small_policy(trained_timesteps="sampler").acting_with(sampling_steps=2)
    assert fewer.diffusion.trained_in((0, 20)).tolist() == [0, 5, 10, 15]


def test_select_action_queues_the_executed_actions() -> None:
    """Ha = 2: the first call samples a chunk, the second takes from the queue whatever is observed, the third samples."""
    policy, quiet = small_policy(executed=2), small_policy(executed=2)
    first, other = np.zeros((1, DO)), np.ones((1, DO))
    policy.select_action(first, "a")
    quiet.select_action(first, "a")
    assert np.array_equal(policy.select_action(other, "a"), quiet.select_action(first, "a"))
    assert not np.array_equal(policy.select_action(other, "a"), quiet.select_action(first, "a"))


def test_each_environment_has_its_own_queue() -> None:
    policy = small_policy(executed=2)
    both = policy.select_action(np.zeros((2, DO)), "a")
    policy.reset([0])
    after = policy.select_action(np.zeros((2, DO)), "a")
    assert np.allclose(after[0], both[0], atol=1e-5)  # environment 0 starts anew: the same observation, the same noise
    assert not np.allclose(after[1], both[1], atol=1e-2)


def test_executed_actions_start_now() -> None:
    chunk = torch.arange(8.0).view(1, 8, 1)
    assert small_policy(horizon=8, executed=2, past_actions=5).executed(chunk).flatten().tolist() == [5, 6]


def test_predict_has_the_signature_of_stable_baselines3() -> None:
    policy = small_policy()
    action, state = policy.predict(np.zeros(DO), task="a")
    assert action.shape == (DA,) and np.abs(action).max() <= 1
    batch, state = policy.predict(np.zeros((3, DO)), None, np.ones(3, bool), deterministic=True, task="b")
    assert batch.shape == (3, DA)
    follow, _ = policy.predict(np.zeros((3, DO)), state, np.zeros(3, bool), task="b")
    again, _ = policy.predict(np.zeros((3, DO)), state, np.zeros(3, bool), task="b")
    assert np.array_equal(follow, again)  # the state that was passed in is not changed


def test_stable_baselines3_evaluates_it() -> None:
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    from reconverge.envs.tasks import find_task, make_env
    from reconverge.policy.config import PolicyConfig, ResidualMLPConfig

    task = find_task("point-reach-0")
    config = PolicyConfig(mlp=ResidualMLPConfig(8, 1, 8), timesteps=10, sampling_steps=2)
    policy = DiffusionPolicy(config, [task.name], 4, 2, Normalizer.for_task(task), seed=0)
    reward, spread = evaluate_policy(policy, DummyVecEnv([lambda: make_env(task)]), n_eval_episodes=2, warn=False)  # type: ignore[arg-type,list-item]
    assert np.isfinite([reward, spread]).all()


@pytest.mark.parametrize(
    ("observations", "says"), [(np.zeros(DO), "shape"), (np.zeros((2, DO + 1)), "shape"), (np.full((1, DO), np.nan), "not finite")]
)
def test_observations_that_do_not_fit_are_refused_every_time(observations: np.ndarray, says: str) -> None:
    policy = small_policy()
    policy.select_action(np.zeros((2, DO)), "a")  # the queues are full now
    with pytest.raises(ValueError, match=says):
        policy.select_action(observations, "a")


def test_predict_asks_for_the_task_of_a_policy_of_several() -> None:
    with pytest.raises(ValueError, match="knows 2 tasks"):
        small_policy().predict(np.zeros(DO))


def test_an_unknown_task_is_answered_with_the_nearest() -> None:
    assert small_policy(tasks=("hammer-v3", "push-v3")).task_index("push") == 1
    assert small_policy(tasks=("reach-v3", "reach")).task_index("reach") == 1
    with pytest.raises(UnknownName, match="did you mean 'hammer-v3'"):
        small_policy(tasks=("hammer-v3", "push-v3")).task_index("hamer-v3")


def test_the_task_is_seen_only_when_conditioned_on() -> None:
    observations, tasks = torch.zeros(2, 2, DO), torch.tensor([0, 1])
    told, untold = small_policy(), small_policy(task_conditioned=False)
    assert not torch.equal(*told.condition(observations, tasks))
    assert torch.equal(*untold.condition(observations, tasks))


def test_normaliser_uses_the_tasks_range_and_clips_far_outside() -> None:
    task = Task("t", "toy", 2, 1, 10, 0.1, "", ObservationLayout((0, 2)), (1.0, 2.0), (0.5, 0.1))
    normalizer = Normalizer.for_task(task)
    assert normalizer(torch.tensor([1.5, 2.0])).tolist() == [1, 0]
    assert normalizer(torch.tensor([1e9, -1e9])).tolist() == [6, -6]
    with pytest.raises(ValueError, match="positive"):
        Normalizer(torch.zeros(1), torch.zeros(1))


def test_a_number_that_is_constant_in_the_first_stage_keeps_its_units() -> None:
    """0.3 in every demonstration of the first task; in a later one it moves between 0.5 and 0.6, which must not be clipped to one value."""
    task = Task("t", "toy", 3, 1, 10, 0.1, "", ObservationLayout((0, 3)))
    observations = torch.tensor([[0.3, 1.0, 5.0], [0.3, 3.0, 5.0001], [0.3, 5.0, 5.0]])
    normalizer = Normalizer.for_task(task, observations)
    assert normalizer.scale.tolist() == pytest.approx([1.0, 2.0, 1e-3])
    later = normalizer(torch.tensor([[0.5, 3.0, 5.0], [0.6, 3.0, 5.0]]))
    assert later[:, 0].tolist() == pytest.approx([0.2, 0.3], abs=1e-6)
    far = torch.full((20_000, 3), 1000.1)  # of whose float32 the standard deviation is 0.0003
    assert Normalizer.for_task(task, far).scale.tolist() == [1.0, 1.0, 1.0]


def test_learning_a_second_task_does_not_move_the_normaliser() -> None:
    from small_policy import random_windows

    from reconverge.policy.config import TrainConfig
    from reconverge.policy.learner import Learner
    from reconverge.policy.methods.bounds import finetune

    learner = Learner(small_policy(), finetune(), TrainConfig(updates=2, batch_size=8), seed=0)
    before = learner.policy.normalizer.state_dict()
    for stage in (1, 2):
        learner.begin_stage(stage, random_windows(task=stage - 1, seed=stage), 2)
        learner.update()
        learner.end_stage()
    assert all(torch.equal(value, learner.policy.normalizer.state_dict()[name]) for name, value in before.items())
