"""The commands: their options as frozen data, and what each one does.

Heavy imports stand inside the functions, so that help and lists answer without torch or a simulator.
"""

from __future__ import annotations

from reconverge.launch.commands.collect import Collect
from reconverge.launch.commands.command import Command
from reconverge.launch.commands.expert import TrainExpert
from reconverge.launch.commands.export import Export
from reconverge.launch.commands.export_demonstrations import ExportDemonstrations
from reconverge.launch.commands.inform import Doctor, List
from reconverge.launch.commands.inspect import Inspect
from reconverge.launch.commands.measure import Diagnose, Evaluate, Recover
from reconverge.launch.commands.pages import Render, Report
from reconverge.launch.commands.share import Pull, Push
from reconverge.launch.commands.sweep import Sweep
from reconverge.launch.commands.track import Track
from reconverge.launch.commands.train import Train
from reconverge.launch.commands.verify import Verify
from reconverge.launch.commands.view import View

COMMANDS: dict[str, type[Command]] = {
    "train": Train,
    "sweep": Sweep,
    "evaluate": Evaluate,
    "recover": Recover,
    "diagnose": Diagnose,
    "render": Render,
    "report": Report,
    "view": View,
    "track": Track,
    "export": Export,
    "export-demonstrations": ExportDemonstrations,
    "push": Push,
    "pull": Pull,
    "collect": Collect,
    "inspect": Inspect,
    "train-expert": TrainExpert,
    "list": List,
    "doctor": Doctor,
    "verify": Verify,
}
