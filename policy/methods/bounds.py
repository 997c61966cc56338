"""The two bounds of continual learning: `finetune` keeps nothing, `joint` has everything at once."""

from __future__ import annotations

from reconverge.policy.hooks import Method


def finetune() -> Method:
    """Learn each task with nothing to hold the earlier ones: the lower bound."""
    return Method("finetune")


def joint() -> Method:
    """The upper bound. It needs no hook: the curriculum loop gives it all tasks as one stage."""
    return Method("joint")
