"""Where the figures of a run can be sent besides its folder: TensorBoard, Weights & Biases, Trackio.

Each is an optional library, imported only when it is asked for, behind the two verbs of `Tracker`. Without `online` nothing leaves this
machine and nothing asks for an account; all that they write lies in the folder that is given, never in a run's.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from reconverge.envs.errors import ConfigError
from reconverge.envs.optional_library import need_libraries

TrackerName = Literal["tensorboard", "wandb", "trackio"]
PROJECT = "reconverge"
REMOTE_TRACKIO = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
"""Environment variables by which Trackio would send figures away."""


class Tracker(Protocol):
    """One run in one tracker."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Figures at a number of updates in all, which never falls."""

    def close(self) -> None:
        """Write what is still held back."""


def check_trackers(names: Sequence[TrackerName], online: bool = False) -> None:
    """Raise MissingLibrary for a tracker whose library is not installed, ConfigError for one that cannot be reached as asked."""
    for name in names:
        need_libraries([name], f"--track {name}", name)
    if online and not {"wandb", "trackio"} & set(names):
        raise ConfigError("--track-online goes with --track wandb or --track trackio; leave it out")


def open_tracker(kind: TrackerName, name: str, settings: Mapping[str, Any], folder: Path, online: bool = False) -> Tracker:
    """Begin a run called `name`, such as `cw10/replay/seed-0`, in a tracker that keeps its files in `folder`.

    A run of this name that TensorBoard has already is replaced; the others begin a second one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _OPENERS[kind](name, dict(settings), folder.absolute(), online)


class _TensorBoard:
    def __init__(self, name: str, settings: dict[str, Any], folder: Path, online: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        place = folder / "tensorboard" / name
        for earlier in place.glob("events.out.tfevents.*"):
            earlier.unlink()
        self._writer = SummaryWriter(str(place))
        lines = "\n".join(f"    {key}: {value}" for key, value in settings.items())
        self._writer.add_text("settings", lines)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, name: str, settings: dict[str, Any], folder: Path, online: bool) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        if online and wandb.api.api_key is None:  # else it would ask, and the run would wait for an answer
            raise ConfigError("no account is known here; `wandb login`, or leave --track-online out and `wandb sync` later")
        self._run = wandb.init(
            project=PROJECT, name=name, group=name.rpartition("/")[0], config=settings, dir=folder, mode="online" if online else "offline",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True),
        )  # fmt: skip

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, name: str, settings: dict[str, Any], folder: Path, online: bool) -> None:
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        if not online:
            for variable in REMOTE_TRACKIO:
                os.environ.pop(variable, None)
        with contextlib.redirect_stdout(io.StringIO()):  # its greetings; errors come as exceptions
            import trackio

            # In a context of its own: it would end the run that was begun before this one.
            begin = contextvars.copy_context()
            self._run = begin.run(trackio.init, PROJECT, name=name, config=settings, embed=False, auto_log_gpu=False, auto_log_cpu=False)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self._run.finish()


_OPENERS: dict[TrackerName, Callable[[str, dict[str, Any], Path, bool], Tracker]] = {
    "tensorboard": _TensorBoard, "wandb": _WeightsAndBiases, "trackio": _Trackio,
}  # fmt: skip
