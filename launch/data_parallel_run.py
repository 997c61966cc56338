"""One run on several processes: rank 0 leads and is the run, the others lend it their devices while a stage is learned.

    rank 0    collect, begin | STAGE  UPDATE  UPDATE  CHECK  save ... | fisher, generator, evaluate, checkpoint | STAGE ...  report | END
    others    wait           | take   update  update  check  wait ... | wait                                    | take  ...  wait   | leave

At a STAGE the others receive all that a checkpoint of the stage before holds, the new stage's windows and, where the stage was broken off,
how far it had come. So they read and write no file but the curriculum, a resumed run may have another number of processes, and what rank 0
computes alone (the Fisher, the generator, pools of windows) reaches them as the same bits.
"""

from __future__ import annotations

import contextlib
import signal
from enum import IntEnum
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from reconverge.envs.errors import ProcessesDiffer, ProcessLost, TrainingDiverged
from reconverge.launch.assembly import Assembly, assemble
from reconverge.launch.config import RunConfig
from reconverge.launch.process_rank import ProcessRank
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stage_plan import run_curriculum
from reconverge.launch.stop_request import SIGNALS
from reconverge.policy.data_parallel import Ranks
from reconverge.policy.diffusion_policy import arrays_of
from reconverge.policy.exact_arithmetic import set_arithmetic
from reconverge.policy.saved_arrays import fill
from reconverge.policy.windows import WindowBatch, WindowTable


class Command(IntEnum):
    """What rank 0 has the others do."""

    STAGE = 0
    UPDATE = 1
    CHECK = 2
    END = 3


def join(config: RunConfig, place: ProcessRank) -> Ranks:
    """Meet the other processes; on GPUs, take the one of this process."""
    if place.rank > 0:  # a wish to stop reaches all: rank 0 saves what there is, for which it needs the others, and ends them
        _ignore_signals()
    if config.device == "cuda":
        torch.cuda.set_device(place.local)
    ranks = Ranks.join(place.rank, place.count, "nccl" if config.device == "cuda" else "gloo")
    ranks.on_loss = _ignore_signals  # torchrun ends the others when one is gone, which is what is being said already
    return ranks


class Lead:
    """Rank 0's word to the others; they are let go at the end.

    with Lead(ranks) as lead:
        train(config, folder, progress, lead)
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def __enter__(self) -> Lead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not isinstance(error, ProcessLost):  # then the others see the connection break
            with contextlib.suppress(ProcessLost):
                self._tell(Command.END)
                self.ranks.leave()

    def begin_stage(self, assembly: Assembly, stage: int, updates: int, windows: WindowTable, underway: dict[str, np.ndarray] | None) -> None:
        """Send what the learner and the source hold before stage `stage` begins, and the stage."""
        batch = windows.all()
        parts = {
            "policy": arrays_of(assembly.learner.policy.state_dict()),
            "learner": assembly.learner.arrays(),
            "source": {} if assembly.source is None else assembly.source.arrays(),
            "windows": arrays_of({"observations": batch.observations, "actions": batch.actions, "task": batch.task, "times": windows.times}),
            "underway": {} if underway is None else underway,
        }
        self._tell(Command.STAGE, stage, updates, assembly.learner.stage)
        for arrays in parts.values():
            self.ranks.send_arrays(arrays)

    def update(self) -> None:
        """The others make the next update beside this process's own."""
        self._tell(Command.UPDATE)

    def check(self, values: torch.Tensor, place: str) -> None:
        """Raise ProcessesDiffer unless all hold the weights `values` (P,); `place` says in its message when."""
        self._tell(Command.CHECK)
        if not self.ranks.agree(values):
            raise ProcessesDiffer(
                f"the processes of this run hold different weights after {place}; they must be machines of one kind, and a method of one's "
                "own must take its gradients by learner.backward. Nothing was saved of it: go on with --resume in a single process"
            )

    def _tell(self, command: Command, stage: int = 0, updates: int = 0, before: int = 0) -> None:
        """`before`: the stage at whose end the learner is, 0 with `joint` and in the first one."""
        self.ranks.tell(command, stage, updates, before)


def follow(config: RunConfig, folder: Path, ranks: Ranks) -> None:
    """Do what rank 0 says, which writes in `folder`, until it lets go. Raises ProcessLost when rank 0 is gone."""
    set_arithmetic(config.threads)
    assembly: Assembly | None = None
    while True:
        command, stage, updates, before = ranks.listen(4)
        if command == Command.END:
            ranks.leave()
            return
        if command == Command.STAGE:
            assembly = assembly or assemble(config, run_curriculum(RunFolder.open(folder), config).tasks)
            _take_stage(assembly, stage, updates, before, ranks)
        assert assembly is not None, "rank 0 begins a stage first"
        if command == Command.UPDATE:
            with contextlib.suppress(TrainingDiverged):  # rank 0 has met the same, and says so
                assembly.learner.update()
        if command == Command.CHECK:
            ranks.agree(assembly.learner.parameters.values)


def _ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _take_stage(assembly: Assembly, stage: int, updates: int, before: int, ranks: Ranks) -> None:
    """The other side of `Lead.begin_stage`."""
    policy, learned, source, windows, underway = (ranks.receive_arrays() for _ in range(5))
    learner = assembly.learner
    fill(learner.policy, policy, "what rank 0 sent")
    if assembly.source is not None and before > 0:
        assembly.source.load_arrays(source, learner.policy)
    learner.load_arrays(before, learned)
    observations, actions, task, times = (torch.from_numpy(windows[name]) for name in ("observations", "actions", "task", "times"))
    learner.begin_stage(stage, WindowTable(WindowBatch(observations, actions, task), times), updates)
    if underway:
        learner.load_underway(underway)
    learner.ranks = ranks
