"""Point reach that misbehaves, for the tests of what happens then: it is registered with Gymnasium, so that workers can make it.

What goes wrong is in a file, `plan` of the folder FAULTS (an environment variable, which workers inherit): "PLACE KIND TIMES", such as
"step raise 1"; TIMES are counted over all processes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import gymnasium

from reconverge.envs.point_reach import PointReachEnv
from reconverge.envs.task import Task
from reconverge.envs.tasks import find_task

REACH = find_task("point-reach-2")
FAULTY = Task("gym:faulty_reach:FaultyReach-v0", "gym", 4, 2, REACH.horizon, REACH.control_dt_s, REACH.success, REACH.layout)


class FaultyReach(PointReachEnv):
    def __init__(self) -> None:
        go_wrong("constructor")
        super().__init__(REACH)

    def reset(self, *, seed=None, options=None):
        go_wrong("reset")
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self._steps == 7:
            go_wrong("step")
        return super().step(action)


def go_wrong(place: str) -> None:
    folder = Path(os.environ.get("FAULTS", "/nowhere"))
    if not (folder / "plan").exists():
        return
    where, kind, times = (folder / "plan").read_text().split()
    if where != place or not any(_first_to_make(folder / f"fault-{number}") for number in range(int(times))):
        return
    match kind:
        case "raise":
            raise RuntimeError("the arm fell off")
        case "loop":
            while True:
                pass
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "die":
            os._exit(3)


def _first_to_make(path: Path) -> bool:
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


gymnasium.register("FaultyReach-v0", FaultyReach)
