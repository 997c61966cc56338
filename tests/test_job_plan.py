"""Which jobs a sweep has: seeds, variations, ablations, and what they are called."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_sweep import toy

from reconverge.envs.errors import ConfigError, UnknownName
from reconverge.launch.cli import parse
from reconverge.launch.commands import Sweep, Train
from reconverge.launch.config import RunConfig
from reconverge.launch.job_plan import label, make_job, parse_changes, parse_seeds, parse_variations, plan_jobs, with_settings
from reconverge.launch.presets import find_preset


@pytest.mark.parametrize(
    ("words", "expected"),
    [("0..4", (0, 1, 2, 3, 4)), ("0..2 7", (0, 1, 2, 7)), ("3", (3,)), ("5 0..1 1", (5, 0, 1)), ("2..2", (2,)), ("007", (7,))],
)
def test_seeds(words: str, expected: tuple[int, ...]) -> None:
    assert parse_seeds(words.split()) == expected


@pytest.mark.parametrize("word", ["4..0", "a", "", "-1", "0...4", "..3", "1.5", "0..999999999", "0,1", "²", "1" * 40])
def test_seeds_that_are_none(word: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        parse_seeds([word])


def test_variations_are_combined_and_read_as_in_a_file() -> None:
    found = parse_variations(["train.updates=1000,2000", "replay.source=stored,generator", "train.optimizer.learning_rate=1e-3"], RunConfig())
    assert len(found) == 4
    assert found[0] == {"train.updates": 1000, "replay.source": "stored", "train.optimizer.learning_rate": 0.001}
    assert parse_variations(["recovery.grid=[2,100],[]", "policy.task_conditioned=false"], RunConfig()) == [
        {"recovery.grid": (2, 100), "policy.task_conditioned": False},
        {"recovery.grid": (), "policy.task_conditioned": False},
    ]
    assert parse_variations(["train.updates=5,5"], RunConfig()) == [{"train.updates": 5}]
    assert parse_variations([], RunConfig()) == [{}]


def test_ablations_are_made_one_at_a_time_beside_the_base() -> None:
    changes = parse_changes(["policy.window=1,2", "train.replay_weight=1,3"], RunConfig())
    assert changes == [{"policy.window": 1}, {"train.replay_weight": 3.0}]  # 2 and 1 are what the base has
    jobs = plan_jobs(find_preset("smoke"), "smoke", ["replay", "ewc"], [0], [{"train.updates": 5}], changes)
    assert [str(job.path) for job in jobs] == [
        "replay/train.updates=5/seed-0",
        "ewc/train.updates=5/seed-0",
        "replay/policy.window=1,train.updates=5/seed-0",
        "ewc/policy.window=1,train.updates=5/seed-0",
        "replay/train.replay_weight=3.0,train.updates=5/seed-0",  # which ewc does not read
    ]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["train.update=5"], "did you mean 'train.updates'?"),
        (["seed=1"], "--ablate seed: use --seeds"),
        (["policy.window"], "--ablate policy.window: give KEY=VALUE"),
        (["policy.window=1", "policy.window=3"], "--ablate policy.window is given twice"),
        (["train.updates=6"], "train.updates is given with --vary and with --ablate"),
        (["policy.window=2"], "--ablate policy.window=2 is what the runs have anyway"),
    ],
)
def test_ablations_that_are_none(words: list[str], hint: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=re.escape(hint)):
        parse_changes(words, RunConfig(), ["train.updates"])


@pytest.mark.parametrize("flag", ["--vary", "--ablate"])
def test_settings_that_no_method_reads_are_refused(flag: str) -> None:
    settings = [{"train.meta.momentum": 0.5}]
    given = {"variations": settings} if flag == "--vary" else {"changes": settings}
    with pytest.raises(ConfigError, match=re.escape(f"{flag} train.meta.momentum: no result of replay or ewc depends on it")):
        plan_jobs(find_preset("smoke"), "smoke", ["replay", "ewc"], [0], **given)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("train.update=5", "did you mean 'train.updates'?"),
        ("train=5", "unknown setting 'train'"),
        ("replay.source=stord", "did you mean 'stored'?"),
        ("train.updates=many", "int was expected"),
        ("train.updates=1,,2", "cannot be read"),
        ("train.updates=[", "cannot be read"),
        ("train.updates=", "has no value; give some, such as --vary train.updates=2000"),
        ("train.updates", "give KEY=VALUE"),
        ("method=replay", "use --methods"),
        ("seed=1", "use --seeds"),
        ("evaluation.workers=1,2", "no result depends on it"),
        ("train.updates=!!python/object/apply:os.system [x]", "cannot be read"),
    ],
)
def test_variations_that_are_none(word: str, hint: str) -> None:
    with pytest.raises((ConfigError, UnknownName), match=re.escape(hint)):
        parse_variations([word], RunConfig())


def test_a_key_is_varied_once() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        parse_variations(["train.updates=1", "train.updates=2"], RunConfig())


values = st.one_of(st.text(max_size=200), st.integers(), st.floats(), st.booleans(), st.lists(st.integers(), max_size=90).map(tuple))


@given(st.dictionaries(st.sampled_from(["curriculum", "train.updates", "recovery.grid"]), values, min_size=1))
def test_a_label_is_one_safe_part_of_a_path_in_any_order(settings: dict[str, Any]) -> None:
    found = label(settings)
    assert re.fullmatch(r"[A-Za-z0-9._=,+-]{1,140}", found) and found[0].isalpha()
    assert label(dict(reversed(settings.items()))) == found


@given(st.text(max_size=200), st.text(max_size=200))
def test_labels_keep_values_apart(first: str, second: str) -> None:
    assert (label({"curriculum": first}) == label({"curriculum": second})) == (first == second)


def test_a_label_can_be_read() -> None:
    assert label({"train.updates": 1000, "replay.source": "stored"}) == "replay.source=stored,train.updates=1000"
    assert label({}) == ""


def test_jobs_are_every_combination_seed_by_seed() -> None:
    jobs = plan_jobs(toy(), "smoke", ["finetune", "replay"], [0, 3], [{"train.updates": 10}, {"train.updates": 20}])
    assert [str(job.path) for job in jobs[:3]] == [
        "finetune/train.updates=10/seed-0",
        "replay/train.updates=10/seed-0",
        "finetune/train.updates=20/seed-0",
    ]
    assert len({job.address for job in jobs}) == len(jobs) == 8
    assert [job.config.seed for job in jobs] == [0] * 4 + [3] * 4 and jobs[2].updates == 40


def test_a_job_that_cannot_be_run_is_refused_before_any_is() -> None:
    with pytest.raises(ConfigError, match=r"train\.updates is 0"):
        plan_jobs(toy(), "smoke", ["replay"], [0], [{"train.updates": 5}, {"train.updates": 0}])
    with pytest.raises(UnknownName, match="did you mean 'cw10'"):
        plan_jobs(toy(), "smoke", ["replay"], [0], [{"curriculum": "cw11"}])
    with pytest.raises(ConfigError, match="more than 10000 jobs"):
        plan_jobs(toy(), "smoke", ["replay"], range(20_000))


def test_the_command_of_a_job_gives_its_configuration() -> None:
    config = with_settings(toy(seed=3), {"recovery.grid": [2, 5], "policy.task_conditioned": False, "method": "replay"})
    words = shlex.split(make_job(config, "smoke").command)
    assert words[:2] == ["reconverge", "train"]
    command = parse(Train, words[2:], "reconverge train")
    assert isinstance(command, Train) and command.config == config


def test_a_sweep_has_one_thread_a_job_unless_told_otherwise() -> None:
    assert find_preset("quickstart").threads == 2
    for words, threads in (("--preset quickstart", 1), ("--preset quickstart --threads 3", 3)):
        command = parse(Sweep, words.split(), "reconverge sweep")
        assert isinstance(command, Sweep) and command.config.threads == threads


def test_two_names_of_one_curriculum_are_one_job() -> None:
    jobs = plan_jobs(find_preset("smoke"), "smoke", ["replay"], [0], [{"curriculum": "cw10"}, {"curriculum": "cw10:10"}])
    assert [str(job.path) for job in jobs] == ["replay/curriculum=cw10/seed-0"]
