"""What every part of a run works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconverge.envs.simulators import Simulators
from reconverge.launch.config import RunConfig
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.launch.stop_request import StopRequest

if TYPE_CHECKING:
    from reconverge.launch.data_parallel_run import Lead


@dataclass(frozen=True)
class Workplace:
    """One process that trains: the settings and the folder of its run, and its means.

    Attributes:
        stop: heard between two updates and while episodes are played. lead: of the processes that share every batch; None where there is one.
    """

    config: RunConfig
    folder: RunFolder
    progress: Progress
    simulators: Simulators
    stop: StopRequest
    lead: Lead | None = None
