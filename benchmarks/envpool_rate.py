"""Prints EnvPool's steps per second for Meta-World tasks, one environment and one thread each, as a JSON list.

    python -m benchmarks.envpool_rate STEPS hammer-v3 push-wall-v3 ...
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np


def envpool_name(task: str) -> str:
    """`push-wall-v3` is `MetaWorld/PushWall-v3` there."""
    words, version = task.rsplit("-", 1)
    return f"MetaWorld/{''.join(word.capitalize() for word in words.split('-'))}-{version}"


def rate(task: str, steps: int) -> float:
    import envpool

    env = envpool.make_gymnasium(envpool_name(task), num_envs=1, num_threads=1, seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 1, 4)).astype(env.action_space.dtype)
    env.reset()
    env.step(actions[0])
    started = time.perf_counter()
    for action in actions:
        env.step(action)
    return steps / (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps([rate(task, int(sys.argv[1])) for task in sys.argv[2:]]))
