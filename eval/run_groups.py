"""Which runs are repetitions of one another: same method, same settings, other seeds.

    replay/seed-0     replay.source generator     ->  replay                         seeds 0, 1
    replay/seed-1     replay.source generator
    oracle/seed-0     replay.source stored        ->  replay, source=stored          seed 0

Settings that change nothing but perhaps the last digits, or that the method does not read, are ignored. A setting that a run's file lacks has its
default, as everywhere. A label names what is not as usual, of the settings in which the groups of one method differ: as in the group of which
the others are variations, where there is one, as after `sweep --ablate`; else as by default. A setting goes by the end of its dotted name, as far
as no other that its method reads ends so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.eval.inert_settings import INERT
from reconverge.eval.run_results import RunResults
from reconverge.policy.config import PolicyConfig, TrainConfig
from reconverge.policy.method_settings import is_read
from reconverge.replay.config import ReplayConfig

MEASURED_BESIDES = ("evaluation.next_task", "evaluation.later_tasks", "evaluation.learning_grid")
WITHOUT_EFFECT = frozenset((*INERT, "threads", "device", "train.log_every", *MEASURED_BESIDES))
"""Settings that change nothing, or with `threads` and `device` the last digits only; how often training is logged; what is measured besides."""
OTHER_METHOD = ("train.trust_region.form", "train.trust_region.fisher", "train.distillation", "replay.source")
"""Settings by which a method becomes another one than was published under its name."""
LABEL_ITEMS = 4
"""A list with more entries than this is not written out in a label."""


@dataclass(frozen=True)
class RunGroup:
    """Runs that differ in nothing but their seed, in order of seeds; never empty.

    Attributes:
        label: the method's name and, where the method has several groups, what tells this one apart.
        variation: the settings in the label, such as `source=stored`.
    """

    label: str
    method: str
    runs: tuple[RunResults, ...]
    variation: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def published_as(self) -> str:
        """The published method whose figures may stand beside these; empty for a form or a source of replay that is another method."""
        settings, usual = settings_of(self.runs[0]), default_settings()
        return self.method if all(settings.get(key, usual[key]) == usual[key] for key in OTHER_METHOD) else ""

    @property
    def stages(self) -> tuple[str, ...]:
        """The task of every stage, which is the same in all runs."""
        return self.runs[0].stages


def group_runs(runs: Sequence[RunResults]) -> list[RunGroup]:
    """The groups, methods in order of first appearance, each beginning with the group that bears its name alone.

    A second run with the settings and seed of another counts once: the first is taken.
    """
    found: dict[str, list[RunResults]] = {}
    for run in runs:
        found.setdefault(kind_of(run), []).append(run)
    members = [sorted({run.seed: run for run in reversed(group)}.values(), key=lambda run: run.seed) for group in found.values()]
    labels = _labels([group[0] for group in members])
    groups = [RunGroup(label, group[0].method, tuple(group), tuple(named)) for (label, named), group in zip(labels, members, strict=True)]
    methods = [group.method for group in groups]
    return sorted(groups, key=lambda group: (methods.index(group.method), group.label != group.method))


def kind_of(run: RunResults, **instead: Any) -> str:
    """The same for runs of one method with the same settings; `instead` stand in the place of a run's own."""
    return json.dumps([run.method, settings_of(run) | instead], sort_keys=True, default=str)


def settings_of(run: RunResults) -> dict[str, Any]:
    """Every dotted setting on which the results may depend, but the method and the seed; those absent from the run at their default.

    `curriculum` is the list of tasks; `train.updates` and `demonstrations.episodes` are what the stages really had, whichever file said so;
    `extended_after` the stages after which it was given more tasks, if any.
    """
    settings = {**default_settings(), **flat_settings(run.config)}
    ignored = WITHOUT_EFFECT | {"method", "seed"}
    settings |= {"curriculum": list(run.stages), "train.updates": _of_stages(run.stage_updates), "extended_after": run.extended_after}
    if None not in run.stage_demonstrations:
        settings["demonstrations.episodes"] = _of_stages(run.stage_demonstrations)
    return {key: value for key, value in settings.items() if key not in ignored and is_read(key, run.method)}


def default_settings() -> dict[str, Any]:
    """Dotted settings at their defaults."""
    return {"extended_after": []} | flat_settings({
        "policy": asdict(PolicyConfig()), "train": asdict(TrainConfig()), "replay": asdict(ReplayConfig()),
        "demonstrations": asdict(DemonstrationConfig()), "evaluation": asdict(EvaluationConfig()), "recovery": asdict(RecoveryConfig()),
    })  # fmt: skip


def flat_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            settings |= flat_settings(value, f"{prefix}{key}.")
        else:
            settings[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return settings


def differing(runs: Sequence[RunResults]) -> dict[str, list[Any]]:
    """Dotted setting -> its distinct values in order of appearance, of those that are not equal in all runs."""
    values: dict[str, list[Any]] = {}
    for settings in map(settings_of, runs):
        for key, value in settings.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return {key: found for key, found in values.items() if len(found) > 1}


def worded(value: Any) -> str:
    """A setting's value in a label: long lists only by their length."""
    if not isinstance(value, list):
        return str(value)
    return f"{len(value)} entries" if len(value) > LABEL_ITEMS else "[" + ", ".join(map(str, value)) + "]"


def _labels(firsts: Sequence[RunResults]) -> list[tuple[str, list[str]]]:
    """One distinct label for the first run of every group, and the settings in it."""
    labels: dict[str, list[str]] = {}
    groups = {method: [other for other in firsts if other.method == method] for method in {run.method for run in firsts}}
    usual = {method: _usual_settings(alike) for method, alike in groups.items()}
    keys = {method: differing(alike) for method, alike in groups.items()}
    for run in firsts:
        own, method = settings_of(run), run.method
        changed = [key for key in keys[method] if own.get(key) != usual[method].get(key)]
        named = [f"{_shortened(key, own)}={run.curriculum if key == 'curriculum' else worded(own.get(key))}" for key in changed]
        label = ", ".join([method, *named])
        labels[label if label not in labels else f"{label} (#{len(labels) + 1})"] = named
    return list(labels.items())


def _usual_settings(alike: Sequence[RunResults]) -> dict[str, Any]:
    """What needs no name in the labels of one method: the settings of the run from which the others differ least, all together; of several,
    as where there are two, of the one below whose folder the others lie, as in a sweep. Where that does not tell, the defaults."""
    settings = [settings_of(run) for run in alike]
    changes = [sum(own.get(key) != other.get(key) for other in settings for key in {**own, **other}) for own in settings]
    bases = [number for number, count in enumerate(changes) if count == min(changes)]
    if len(bases) > 1:
        bases = [number for number in bases if all(run.folder.is_relative_to(alike[number].folder.parent) for run in alike)]
    return settings[bases[0]] if len(bases) == 1 else default_settings()


def _shortened(key: str, settings: Iterable[str]) -> str:
    """The shortest end of a dotted name that no other setting has.

    >>> _shortened("train.updates", ["train.updates", "replay.generator.updates", "replay.source"])
    'train.updates'
    >>> _shortened("replay.source", ["train.updates", "replay.generator.updates", "replay.source"])
    'source'
    """
    parts = key.split(".")
    ends = [".".join(parts[first:]) for first in range(len(parts) - 1, 0, -1)]
    return next((end for end in ends if not any(other != key and f".{other}".endswith(f".{end}") for other in settings)), key)


def _of_stages(values: Sequence[Any]) -> Any:
    """One value where all stages have the same, else all of them."""
    return values[0] if len(set(values)) == 1 else list(values)
