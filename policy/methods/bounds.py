"""The two bounds of continual learning: `finetune` keeps nothing, `joint` has everything at once."""

from __future__ import annotations

from reconverge.policy.hooks import Method


def finetune() -> Method:
    """Learn each task with nothing to hold the earlier ones: the lower bound."""
    return Method("finetune")


def joint() -> Method:
    """Learn all tasks in one stage from all demonstrations: the upper bound."""
    return Method("joint", all_tasks_at_once=True)
