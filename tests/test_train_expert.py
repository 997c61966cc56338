"""Experts trained with stable-baselines3: what is kept acts as the model did, holds no code, and is refused when it does not fit."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import slider_world  # registers the environment
from stable_baselines3 import SAC

from reconverge.envs.actor_network import SETTINGS, WEIGHTS, ActorNetwork
from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.demonstrations import collect
from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import DamagedFile, UnsupportedEnvironment
from reconverge.envs.expert_source import UntrustedExpert
from reconverge.envs.experts import check_expert, expert_for
from reconverge.envs.gym_name import read_gym_name
from reconverge.envs.own_task import own_task
from reconverge.envs.tasks import find_task
from reconverge.launch.cli import main
from reconverge.launch.train_expert import Algorithm, ExpertTraining

ENV = "slider_world:OwnSlider-v0"
NAME = f"gym:{ENV}#gap<=0.1"


@pytest.mark.parametrize(("algorithm", "normalize"), [("sac", False), ("td3", True), ("ppo", True), ("ppo", False)])
def test_the_actor_acts_as_the_model_it_was_taken_from(algorithm: Algorithm, normalize: bool, tmp_path: Path, monkeypatch) -> None:
    models = []
    make = ExpertTraining._model
    monkeypatch.setattr(ExpertTraining, "_model", lambda self, env: models.append(make(self, env)) or models[-1])
    if algorithm == "ppo":
        monkeypatch.setattr("stable_baselines3.PPO.__init__.__defaults__", _short_rollouts())
    training = ExpertTraining(read_gym_name(NAME), algorithm, 70, seed=3, normalize=normalize, hidden=(16, 8))
    training.run(lambda actor: actor.save(tmp_path / "expert"))
    actor, (model,) = ActorNetwork.load(tmp_path / "expert"), models
    scaling = model.get_vec_normalize_env()
    assert (scaling is not None) == normalize and actor.facts["steps"] >= 70
    for observation in np.random.default_rng(0).uniform(-2, 2, (20, 1)).astype(np.float32):
        seen = observation if scaling is None else scaling.normalize_obs(observation)
        expected, _ = model.predict(seen, deterministic=True)
        np.testing.assert_allclose(actor.act(observation), np.clip(expected, -1, 1), atol=2e-6)


def test_training_ends_its_episodes_where_the_task_ends_them() -> None:
    name = read_gym_name("gym:slider_world:Endless-v0#gap<=0.1")
    env = ExpertTraining(name, "sac", 10)._environment()
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[3] for _ in range(find_task(str(name)).horizon)]
    assert ends.index(True) == len(ends) - 1


def _short_rollouts() -> tuple[object, ...]:
    """PPO with rollouts of 64 steps instead of 2048, so that a test sees an update."""
    from stable_baselines3 import PPO

    given = list(PPO.__init__.__defaults__)  # type: ignore[misc]
    return tuple(64 if value == 2048 else value for value in given)


def test_the_command_trains_scores_and_says_how_to_use_it(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "expert"
    words = ["train-expert", "--env", ENV, "--success", "gap<=0.1", "--options", "gain=1.0", "--steps", "40", "--hidden", "8"]
    assert main([*words, "--output-dir", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "of 100 episodes" in said and f'expert: "sb3:{folder}"' in said and f"gym:{ENV}?gain=1.0#gap<=0.1" in said
    assert set(Artifact(folder).names) == {SETTINGS, WEIGHTS}
    assert main([*words, "--output-dir", str(folder)]) == 2 and "--overwrite" in capsys.readouterr().err
    assert main([*words, "--output-dir", str(folder), "--overwrite", "--seed", "1"]) == 0
    other = tmp_path / "thesis"
    other.mkdir()
    assert main([*words, "--output-dir", str(other), "--overwrite"]) == 2 and other.exists()


def test_without_a_report_of_success_the_return_is_shown(tmp_path: Path, capsys) -> None:
    assert main(["train-expert", "--env", ENV, "--steps", "20", "--hidden", "8", "--output-dir", str(tmp_path / "expert")]) == 0
    assert "reports no success: give a rule with --success" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [["--env", "CartPole-v1"], ["--env", "No-v0"], ["--env", ENV, "--steps", "0"], ["--env", ENV, "--success", "gab<=1"],
     ["--env", ENV, "--options", "x"], ["--env", ENV, "--hidden", "0"], ["--env", ENV, "--algo", "dqn"],
     ["--env", NAME, "--success", "gap<=1"], ["--env", ENV, "--options", "mass=1"]],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_in_a_line(words: list[str], tmp_path: Path, capsys) -> None:
    assert main(["train-expert", *words, "--output-dir", str(tmp_path / "expert")]) == 2
    assert "reconverge: " in capsys.readouterr().err and not (tmp_path / "expert").exists()


def test_asked_to_stop_it_keeps_what_has_been_learned(tmp_path: Path, capsys, monkeypatch) -> None:
    step = slider_world.Slider.step
    taken = []

    def interrupted(self, action):
        taken.append(action)
        if len(taken) == 60:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, action)

    monkeypatch.setattr(slider_world.Slider, "step", interrupted)
    code = main(["train-expert", "--env", NAME, "--steps", "100000", "--hidden", "8", "--output-dir", str(tmp_path / "expert")])
    assert code == 130 and "of 100000 steps, which can be used" in capsys.readouterr().err
    assert ActorNetwork.load(tmp_path / "expert").facts["steps"] < 100


def _pusher(folder: Path) -> None:
    """A hand-made expert that pushes: tanh of 3 - 3 x."""
    weights = {"0.weight": np.float32([[-3.0]]), "0.bias": np.float32([3.0])}
    ActorNetwork(("linear", "tanh"), weights, 10.0, {"steps": 0}).save(folder)


def test_a_stage_learns_from_it(tmp_path: Path) -> None:
    _pusher(tmp_path / "expert")
    task = own_task(ENV, success={"info": "gap", "at_most": 0.1}, expert=f"sb3:{tmp_path / 'expert'}")
    assert collect(task, DemonstrationConfig(workers=0), 5).successes == 5
    wide = own_task(ENV, options={"sizes": 2}, success={"info": "gap", "at_most": 0.1}, expert=f"sb3:{tmp_path / 'expert'}")
    with pytest.raises(UnsupportedEnvironment, match=r"has 1 observations and 1 actions.*2 and 1"):
        check_expert(wide)


@pytest.mark.parametrize(
    ("layers", "change"),
    [
        (["linear", "conv"], {}),
        (["tanh"], {}),
        ([], {}),
        (["linear"] * 100, {}),
        (["linear", "tanh"], {"0.weight": np.float32([[np.nan]])}),
        (["linear", "tanh"], {"0.bias": np.zeros(2, np.float32)}),
        (["linear", "tanh"], {"9.weight": np.zeros((1, 1), np.float32)}),
        (["linear", "tanh"], {"observation.mean": np.zeros(3, np.float32), "observation.variance": np.zeros(3, np.float32)}),
        (["linear", 3], {}),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers: list, change: dict, tmp_path: Path) -> None:
    weights = {"0.weight": np.float32([[1.0]]), "0.bias": np.float32([0.0]), **change}
    write_artifact(tmp_path / "e", {WEIGHTS: weights, SETTINGS: {"version": 1, "layers": layers, "clip": 10.0, "facts": {}}})
    with pytest.raises(DamagedFile, match="train it again"):
        ActorNetwork.load(tmp_path / "e")


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    _pusher(tmp_path / "e")
    settings = tmp_path / "e" / SETTINGS
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "clip": 3.0}))
    with pytest.raises(DamagedFile):
        ActorNetwork.load(tmp_path / "e")


def test_an_archive_of_ones_own_acts_in_the_environments_units_once_it_is_trusted(tmp_path: Path) -> None:
    model = SAC("MlpPolicy", slider_world.Slider(), policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    model.save(tmp_path / "mine.zip")
    task = own_task(ENV, success={"info": "gap", "at_most": 0.1}, expert=f"sb3:{tmp_path / 'mine.zip'}", trusted=True)
    observation = np.float32([0.3])
    own = -2.0 + (expert_for(task).act(observation) + 1.0) / 2.0 * 8.0
    np.testing.assert_allclose(own, model.predict(observation, deterministic=True)[0], atol=1e-5)
    with pytest.raises(UntrustedExpert):
        own_task(ENV, success={"info": "gap", "at_most": 0.1}, expert=f"sb3:{tmp_path / 'mine.zip'}")
