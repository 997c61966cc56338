"""The configuration as YAML and back, and the ranges of its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from changed_setting import changed, with_value
from hypothesis import given
from hypothesis import strategies as st

from reconverge.envs.errors import ConfigError, DamagedFile, ReconvergeError, UnknownName
from reconverge.launch import config_checks
from reconverge.launch.config import METHODS, REPLAYING, RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.config_file import config_text, differences, flat, from_mapping, read_config, to_mapping
from reconverge.launch.presets import PRESETS, find_preset


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid_and_survives_the_round_trip(name: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(config_text(find_preset(name)))
    assert read_config(file) == find_preset(name)


def test_an_absent_key_keeps_its_default(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("policy: {window: 4}\ntrain: {optimizer: {learning_rate: 1e-3}}\n")  # YAML reads 1e-3 as text
    assert read_config(file) == changed("policy.window", 4)


@pytest.mark.parametrize("key", list(flat(RunConfig())))
def test_a_misspelt_key_is_answered_with_the_right_one(key: str) -> None:
    name = key.rpartition(".")[2]
    content = to_mapping(RunConfig())
    inner = content
    for part in key.split(".")[:-1]:
        inner = inner[part]
    inner[f"{name}x"] = inner.pop(name)
    with pytest.raises(UnknownName, match=f"unknown setting '{name}x'.*did you mean"):
        from_mapping(RunConfig, content, "config.yaml")


@pytest.mark.parametrize("key", list(flat(RunConfig())))
def test_a_value_of_the_wrong_type_is_named_with_its_place(key: str) -> None:
    content = to_mapping(RunConfig())
    inner = content
    for part in key.split(".")[:-1]:
        inner = inner[part]
    name = key.rpartition(".")[2]
    inner[name] = {"a": 1}
    with pytest.raises(ReconvergeError, match=name):
        from_mapping(RunConfig, content, "config.yaml")


@pytest.mark.parametrize(
    "text", ["[1, 2]", "seed: [", "seed: 'x", "!!python/object/apply:os.system ['true']", "seed: !!python/name:os.system ''", "[" * 2000, "\x00"]
)
def test_a_hostile_or_broken_file_is_a_typed_error(text: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ReconvergeError):
        read_config(file)


@pytest.mark.parametrize(
    ("method", "changes", "says"),
    [
        ("ewc", {"train.trust_region.form": "functional"}, "nothing is replayed"),
        ("trust-region", {"train.trust_region.form": "functional", "train.distillation": "noise"}, "distance from the teacher"),
        ("trust-region", {"train.trust_region.form": "functional", "train.weighting": "tasks-seen"}, "weight of the replay loss"),
        ("trust-region", {"train.trust_region.form": "constraint", "train.trust_region.fisher": "diagonal"}, "penalty form"),
        ("ftml", {"train.batch_size": 1}, "support and query"),
        ("single", {"train.optimizer.carry_second_moment": True}, "every task from scratch"),
        ("replay", {"train.batch_size": 256, "train.replay_ratio": 0.0019}, "less than a window"),
        ("replay", {"train.replay_priority": 0.5, "train.replay_ratio": 0.0}, "weighs replayed windows"),
        ("replay", {"train.weighting": "tasks-seen", "train.replay_ratio": 0.0}, "weighs replayed windows"),
        ("replay", {"replay.pool": "redrawn", "replay.source": "stored"}, "what was seen"),
        ("trust-region", {"train.trust_region.form": "functional", "train.replay_priority": 0.5}, "mean distance from the teacher"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(method: str, changes: dict[str, object], says: str) -> None:
    content = to_mapping(RunConfig(method=method))
    for key, value in changes.items():
        inner = content
        for part in key.split(".")[:-1]:
            inner = inner[part]
        inner[key.rpartition(".")[2]] = value
    with pytest.raises(ConfigError, match=says):
        check(from_mapping(RunConfig, content, "config.yaml"))


def test_a_missing_file_is_damage(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"config\.yaml"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("train.updates", -1),
        ("train.batch_size", 0),
        ("train.optimizer.learning_rate", float("nan")),
        ("train.optimizer.learning_rate", float("inf")),
        ("policy.window", 0),
        ("policy.executed", 5),
        ("policy.past_actions", 1),
        ("policy.sampling_steps", 101),
        ("policy.sampling_steps", 50),
        ("policy.ema_decay", 1.5),
        ("policy.unet.groups", 7),
        ("policy.unet.kernel", 4),
        ("replay.generator.sampling_steps", 101),
        ("replay.generator.sampling_steps", 51),
        ("recovery.thresholds", (0,)),
        ("recovery.thresholds", (90, 101)),
        ("recovery.grid", (10, 5)),
        ("recovery.grid", (0, 5)),
        ("video.size", (241, 180)),
        ("device", "gpu"),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        check(changed(key, value))


def test_every_number_has_a_range() -> None:
    numbers = {key for key, value in flat(RunConfig()).items() if isinstance(value, (int, float)) and not isinstance(value, bool)}
    assert numbers == {key for key, _, _ in config_checks._RANGES}


def test_every_method_is_described() -> None:
    assert REPLAYING.issubset(METHODS) and all(METHODS.values())


@given(st.integers(0, 2**31 - 1), st.floats(0, 1e3, allow_nan=False))
def test_differences_name_exactly_what_differs(seed: int, strength: float) -> None:
    other = with_value(changed("seed", seed), ["train", "trust_region", "strength"], strength)
    expected = {"seed": seed, "train.trust_region.strength": strength}
    found = {difference.key: difference.given for difference in differences(RunConfig(), other)}
    assert found == {key: value for key, value in expected.items() if value != flat(RunConfig())[key]}


def test_the_paper_preset_has_the_published_settings() -> None:
    config = find_preset("cw10-paper")
    policy = config.policy
    assert (policy.window, policy.horizon, policy.executed, policy.past_actions) == (6, 8, 2, 5)
    assert (policy.timesteps, policy.sampler, policy.sampling_steps) == (1000, "ddim", 50)
    assert (config.train.updates, config.train.batch_size, config.train.trust_region.strength) == (50_000, 256, 12.0)
    assert config.recovery.grid[:6] == (2, 4, 6, 8, 10, 15)
    assert config.recovery.grid[-1] == 50_000
