"""From the flags of a sweep to its jobs: every seed of every variation of every method.

    --methods finetune replay --seeds 0..1 --vary train.updates=1000,2000

    finetune/train.updates=1000/seed-0    replay/train.updates=1000/seed-0    finetune/train.updates=2000/seed-0    ...

    --methods replay --ablate train.replay_weight=1 --ablate policy.window=1,3

    replay/seed-0    replay/train.replay_weight=1.0/seed-0    replay/policy.window=1/seed-0    replay/policy.window=3/seed-0

A seed's jobs stand together, so that methods can be compared long before the last seed is done.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from reconverge.envs.curriculum import load_curriculum
from reconverge.envs.errors import ConfigError, DamagedFile, UnknownName
from reconverge.envs.experts import check_expert
from reconverge.envs.plain_yaml import parse_yaml
from reconverge.envs.strict_settings import from_mapping
from reconverge.launch.config import RunConfig
from reconverge.launch.config_checks import check
from reconverge.launch.config_file import differences, flag_words, flat, to_mapping
from reconverge.launch.job import LEFT_OUT, Job
from reconverge.launch.own_methods import check_method
from reconverge.launch.presets import find_preset
from reconverge.policy.method_settings import is_read

Settings = dict[str, Any]
MOST_JOBS = 10_000
LONGEST_LABEL = 120


def plan_jobs(
    base: RunConfig,
    preset: str,
    methods: Sequence[str],
    seeds: Sequence[int],
    variations: Sequence[Settings] = ({},),
    changes: Sequence[Settings] = (),
) -> list[Job]:
    """All jobs, checked: every variation as it is and with every one of the `changes` that the method reads.

    Variations of what a method does not read are one job, and so are those that come to the same.
    Raises ConfigError, CurriculumError or UnknownName for the first that cannot be run.
    """
    count = len(variations) * (1 + len(changes))
    if len(methods) * len(seeds) * count > MOST_JOBS:
        raise ConfigError(f"{len(methods)} methods, {len(seeds)} seeds and {count} variations are more than {MOST_JOBS} jobs")
    for flag, given in (("--vary", variations), ("--ablate", changes)):
        for key in itertools.chain.from_iterable(given):
            if not any(is_read(key, method) for method in methods):
                raise ConfigError(f"{flag} {key}: no result of {' or '.join(methods)} depends on it; leave it out, or name a method that reads it")
    jobs: dict[str, Job] = {}
    for seed, variation, change, method in itertools.product(seeds, variations, [{}, *changes], methods):
        if all(is_read(key, method) for key in change):
            settings = {key: value for key, value in {**variation, **change}.items() if is_read(key, method)}
            job = make_job(with_settings(base, {**settings, "method": method, "seed": seed}), preset, label(settings))
            jobs.setdefault(job.address, job)
    return list(jobs.values())


def make_job(config: RunConfig, preset: str, variation: str = "") -> Job:
    """A job of a configuration; raises as `plan_jobs` does."""
    check(config)
    check_method(config.method)
    curriculum = load_curriculum(config.curriculum)
    for task in curriculum.tasks:
        check_expert(task)
    return Job(config, curriculum.resolved(config.train.updates, config.demonstrations.episodes), variation, train_command(preset, config))


def parse_seeds(words: Iterable[str]) -> tuple[int, ...]:
    """`0..2 7` is 0, 1, 2, 7; both ends are meant. A seed given twice counts once. Raises ConfigError for anything else."""
    seeds: dict[int, None] = {}
    for word in words:
        match = re.fullmatch(r"(\d{1,10})(?:\.\.(\d{1,10}))?", word, re.ASCII)
        if match is None:
            raise ConfigError(f"--seeds holds '{word}'; give numbers and ranges such as 0..4, both ends meant")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + MOST_JOBS:
            raise ConfigError(f"--seeds holds '{word}'; a range runs upwards and has at most {MOST_JOBS} seeds")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return tuple(seeds)


def parse_variations(words: Iterable[str], base: RunConfig) -> list[Settings]:
    """Every combination of the settings in words of the form `KEY=VALUE,VALUE...`; one empty combination without any.

    Values are read as in a configuration file, so `recovery.grid=[2,100],[]` are two lists.
    Raises UnknownName for an unknown key or choice, ConfigError for a value that does not fit and a key that makes no sense here.
    """
    choices = _choices("--vary", words, base)
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def parse_changes(words: Iterable[str], base: RunConfig, varied: Collection[str] = ()) -> list[Settings]:
    """One setting each, from words as those of `parse_variations`; a value that the base has anyway is no change.

    Raises as `parse_variations` does, and ConfigError for a key that is `varied` or has no other value than that of the base.
    """
    usual, changes = flat(base), []
    for key, values in _choices("--ablate", words, base, varied).items():
        others = [value for value in values if value != usual[key]]
        if not others:
            raise ConfigError(f"--ablate {key}={_plain_text(usual[key])} is what the runs have anyway; give another value")
        changes += [{key: value} for value in others]
    return changes


def with_settings(config: RunConfig, settings: Mapping[str, Any], place: str = "--vary") -> RunConfig:
    """The configuration with dotted settings replaced, through the strict reader of configuration files."""
    content = to_mapping(config)
    for key, value in settings.items():
        *sections, name = key.split(".")
        inner = content
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return from_mapping(RunConfig, content, place)


def label(settings: Mapping[str, Any]) -> str:
    """Settings as one part of a path, whatever order they were given in: `replay.source=stored,train.updates=1000`.

    Characters that a shell or a file system could take amiss become `-`; a digest then keeps different values apart.
    """
    exact = ",".join(f"{key}={_plain_text(settings[key])}" for key in sorted(settings))
    safe = re.sub(r"[^A-Za-z0-9._=,+-]", "-", exact)[:LONGEST_LABEL]
    return safe if safe == exact else f"{safe}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def train_command(preset: str, config: RunConfig) -> str:
    """The `reconverge train` line that gives this configuration, shell-quoted."""
    words = ["reconverge", "train", "--preset", preset]
    for difference in differences(find_preset(preset), config):
        words += flag_words(difference.key, difference.given)
    return shlex.join(words)


def _choices(flag: str, words: Iterable[str], base: RunConfig, taken: Collection[str] = ()) -> dict[str, list[Any]]:
    """The settings of all words of a flag, each with its values; those in `taken` belong to another flag."""
    choices: dict[str, list[Any]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{flag} {word}: give KEY=VALUE,VALUE... such as {flag} train.updates=1000,2000")
        _check_key(flag, key, choices, base)
        if key in taken:
            raise ConfigError(f"{key} is given with --vary and with {flag}; leave one of them out")
        choices[key] = _values(flag, key, text, base)
    return choices


def _check_key(flag: str, key: str, chosen: Collection[str], base: RunConfig) -> None:
    known = flat(base)
    if key not in known:
        raise UnknownName("setting", key, known, flag)
    if key in ("method", "seed"):
        raise ConfigError(f"{flag} {key}: use --{key}s")
    if key in LEFT_OUT and key != "curriculum":
        raise ConfigError(f"{flag} {key}: no result depends on it ({LEFT_OUT[key]}); give it as --{key.replace('_', '-')}")
    if key in chosen:
        raise ConfigError(f"{flag} {key} is given twice; list all its values in one: {flag} {key}=VALUE,VALUE")


def _values(flag: str, key: str, text: str, base: RunConfig) -> list[Any]:
    """The values of one word, each once, as the configuration holds them."""
    try:
        found = parse_yaml(f"[{text}]".encode(errors="surrogatepass"), f"{flag} {key}")
    except DamagedFile as error:
        raise ConfigError(f"{flag} {key}={text} cannot be read; separate values by commas, and put lists in brackets") from error
    if not found:
        raise ConfigError(f"{flag} {key} has no value; give some, such as {flag} {key}={_plain_text(flat(base)[key])}")
    read = [flat(with_settings(base, {key: value}, flag))[key] for value in found]
    return list(dict.fromkeys(read))


def _plain_text(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, tuple) else str(value)
