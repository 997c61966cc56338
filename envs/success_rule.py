"""What counts as success in an environment that reports none: a rule on what it does report.

    success: {info: is_solved}                         info["is_solved"] is true at some step
    success: {info: reward_dist, at_least: -0.05}      info["reward_dist"] >= -0.05 at some step; or at_most
    success: {return_at_least: 90}                     the rewards of the whole episode add up to 90, which its last step decides

A rule is a part of its task's name, in the short form `is_solved`, `reward_dist>=-0.05` or `return>=90.0`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from reconverge.envs.errors import CurriculumError, UnknownName, shown

RETURN = "return"
"""Stands for the sum of an episode's rewards; no key of `info` can be called so in a rule."""
SUCCESS_KEYS = ("success", "is_success")
"""Flags of `info` by which an environment without a rule says that it is solved."""
KEYS = ("info", "at_least", "at_most", "return_at_least")
_TEXT = re.compile(r"([A-Za-z_][A-Za-z0-9_./-]{0,99})(?:(>=|<=)(-?\d{1,20}(?:\.\d{1,20})?(?:e[+-]?\d{1,3})?))?", re.ASCII)


@dataclass(frozen=True)
class SuccessRule:
    """A condition on one number of a step.

    Attributes:
        quantity: key of the step's `info`, or `return`.
        relation: `>=` or `<=` the bound; empty for a flag that must be true.
    """

    quantity: str
    relation: str = ""
    bound: float = 0.0

    def __str__(self) -> str:
        return f"{self.quantity}{self.relation}{self.bound!r}" if self.relation else self.quantity

    @property
    def in_words(self) -> str:
        if self.quantity == RETURN:
            return f"the episode's rewards add up to at least {self.bound:g}"
        words = {"": "is true", ">=": f"is at least {self.bound:g}", "<=": f"is at most {self.bound:g}"}
        return f"info['{self.quantity}'] {words[self.relation]}"

    def holds(self, info: Mapping[str, Any], episode_return: float, ended: bool) -> bool:
        """Whether a step succeeds, given what it reports, the rewards up to it, and whether it is the episode's last."""
        if self.quantity == RETURN:
            return ended and episode_return >= self.bound
        value = info.get(self.quantity)
        if value is None:
            return False
        if not self.relation:
            return bool(value)
        number = float(value)
        return number >= self.bound if self.relation == ">=" else number <= self.bound


    def over_rewards(self, rewards: np.ndarray) -> np.ndarray:
        """Per step of an episode with these rewards (T,), (T,) bool: of a rule on the return, which the last step decides."""
        total = np.cumsum(rewards)
        return np.array([self.holds({}, total[step], step == len(total) - 1) for step in range(len(total))], bool)


def parse_rule(text: str, place: str) -> SuccessRule:
    """The rule of a short form. Raises CurriculumError, naming the place, for anything else."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise CurriculumError(f"{place}: {shown(text)} is no rule of success; write it as is_solved, reward_dist>=-0.05 or return>=90")
    return _checked(SuccessRule(match[1], match[2] or "", float(match[3] or 0.0)), place)


def read_rule(given: Any, place: str) -> SuccessRule:
    """The rule of a stage's `success` mapping. Raises CurriculumError or UnknownName, naming the place."""
    if not isinstance(given, dict) or not given:
        raise CurriculumError(f"{place}: 'success' must be a mapping such as {{info: is_solved}} or {{return_at_least: 90}}, not {shown(given)}")
    for key in given:
        if key not in KEYS:
            raise UnknownName("key of 'success'", key if isinstance(key, str) else shown(key), KEYS, place)
    if set(given) == {"return_at_least"}:
        return _checked(SuccessRule(RETURN, ">=", _number(given["return_at_least"], "return_at_least", place)), place)
    if "info" not in given or len(given) > 2 or "return_at_least" in given:
        raise CurriculumError(f"{place}: 'success' needs info, alone or with one of at_least and at_most; or return_at_least alone")
    name = given["info"]
    if not isinstance(name, str) or (found := _TEXT.fullmatch(name)) is None or found[2]:
        raise CurriculumError(f"{place}: 'info' must be a key of the environment's info, in letters, digits and _./-, not {shown(name)}")
    if name == RETURN:
        raise CurriculumError(f"{place}: an info called 'return' cannot be told from the episode's return; rename it in a wrapper of yours")
    for key, relation in (("at_least", ">="), ("at_most", "<=")):
        if key in given:
            return _checked(SuccessRule(name, relation, _number(given[key], key, place)), place)
    return SuccessRule(name)


def _number(value: Any, key: str, place: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or abs(value) > 1e15 or not math.isfinite(value):
        raise CurriculumError(f"{place}: '{key}' must be a number, not {shown(value)}")
    return float(value)


def _checked(rule: SuccessRule, place: str) -> SuccessRule:
    if rule.quantity == RETURN and rule.relation != ">=":
        raise CurriculumError(f"{place}: '{rule}' is no rule of success; a return succeeds from a bound on, such as return>=90")
    if not math.isfinite(rule.bound):
        raise CurriculumError(f"{place}: '{rule.quantity}' has no finite bound")
    return SuccessRule(rule.quantity, rule.relation, rule.bound + 0.0)  # one zero: -0.0 would be another name for the same rule
