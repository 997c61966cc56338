"""What can be wrong with an installation or a machine, looked for one by one, the quick things first; each finding carries its fix.

    quick     versions, the pinned simulator, cores, threads, memory, room, places to write, open files       in a thread, at most 5 s each
    trials    the simulator's golden episodes, OpenGL back ends, torch                                        in a process each, killed when late

A check that hangs or crashes is a finding of its own: nothing that is looked at can take doctor down.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.launch.bounded_check import NoAnswer, TooSlow, in_a_process, in_a_thread
from reconverge.launch.config import RunConfig
from reconverge.launch.fingerprint import installed_version, machine, package_versions, usable_cores
from reconverge.launch.machine_limits import can_start_threads, existing, free_bytes, free_memory, granted_cores, open_file_limits, try_to_write
from reconverge.launch.run_folder import LEAST_FREE_BYTES

QUICK_LIMIT_S = 5.0
RENDERER_LIMIT_S = 10.0
TRIAL_LIMIT_S = 30.0
RUNS = Path("runs")
"""Where runs go unless another folder is given; relative to the working directory."""
COMFORTABLE_ROOM = 2e9
"""Bytes on disk that an experiment of several runs takes."""
LEAST_MEMORY, COMFORTABLE_MEMORY = 1e9, 3e9
LEAST_OPEN_FILES, ADVISED_OPEN_FILES = 256, 4096
LEAST_THREADS = 32
OPENGL = "apt-get install -y libegl1 libgl1-mesa-dri"


@dataclass(frozen=True)
class Finding:
    """What was looked at and found; `fix` is what to run when something is wrong, `note` marks what is worth knowing and needs no fix."""

    subject: str
    found: str
    fix: str = ""
    note: bool = False

    @property
    def fine(self) -> bool:
        return not self.fix

    def __str__(self) -> str:
        mark = "FIX " if self.fix else "note" if self.note else "ok  "
        line = f"{mark} {self.subject:<12} {self.found}"
        return line if self.fine else f"{line}\n                  fix: {self.fix}"


Check = Callable[[], list[Finding]]


def examine(quick: bool = False, begin: Callable[[str], None] = lambda subject: None) -> Iterator[Finding]:
    """All findings, as they come; `begin` is called with the subject of every check ahead of it. `quick` leaves out the trials.

    Raises nothing but what an interruption raises.
    """
    sound = True
    for subject, check in QUICK.items():
        begin(subject)
        for finding in _quickly(subject, check):
            sound &= finding.fine or subject not in NEEDED
            yield finding
    for subject, trial in TRIALS.items() if not quick else ():
        begin(subject)
        yield from trial() if sound else [Finding(subject, "not tried: mend the installation first", note=True)]


def _quickly(subject: str, check: Check) -> list[Finding]:
    try:
        return in_a_thread(check, QUICK_LIMIT_S)
    except NoAnswer as failure:
        return [Finding(subject, f"this check failed: {failure}", _HELP.get(subject, "run it again; if it stays, report it with this line"))]


# Installation ------------------------------------------------------------------------------------------------------------------------------


def _python() -> list[Finding]:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return [Finding("python", f"{platform.python_version()} ({sys.executable})", "" if supported else "use Python 3.11, 3.12 or 3.13")]


def _packages() -> list[Finding]:
    """Every package that can change a result, and every requirement of the installed reconverge."""
    versions = package_versions()
    absent = [name for name, found in versions.items() if found == "absent"]
    if absent:
        return [Finding("packages", f"missing: {', '.join(absent)}", _pip(*absent))]
    unmet = _unmet_requirements()
    if unmet:
        listed = ", ".join(f"{_name_of(line)} {found} ({line} is required)" for line, found in unmet.items())
        return [Finding("packages", listed, _pip(*(f"'{line}'" for line in unmet)))]
    return [Finding("packages", ", ".join(f"{name} {found}" for name, found in versions.items()))]


def _unmet_requirements() -> dict[str, str]:
    """Requirement of the installed reconverge -> the version that is here, where that does not meet it."""
    from packaging.requirements import Requirement

    unmet = {}
    for line in requires("reconverge") or []:
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(needed.name)
        if found == "absent" or not needed.specifier.contains(found, prereleases=True):
            unmet[f"{needed.name}{needed.specifier}"] = found
    return unmet


def _pinned() -> list[Finding]:
    """MuJoCo, Meta-World and their files as they were when the golden episodes were recorded."""
    from reconverge.envs.golden_episodes import read_golden
    from reconverge.envs.simulator_fingerprint import metaworld_fingerprint

    golden = read_golden()
    wanted = " and ".join(f"{name} {pin}" for name, pin in golden.versions.items())
    here = " and ".join(f"{name} {installed_version(name)}" for name in golden.versions)
    if here != wanted:
        return [Finding("pinned pair", f"{here}; results are made with {wanted}", _reinstall())]
    if metaworld_fingerprint() != golden.simulator:
        found = f"{here}, but files of it were changed: {metaworld_fingerprint()} instead of {golden.simulator}"
        return [Finding("pinned pair", found, _reinstall())]
    return [Finding("pinned pair", f"{here}, every model file as recorded")]


# Machine -----------------------------------------------------------------------------------------------------------------------------------


def _machine() -> list[Finding]:
    cores, load = granted_cores(), os.getloadavg()[0]
    found = f"{machine()}; {cores:.3g} cores may be kept busy"
    busy = load > 0.5 * cores
    return [Finding("machine", f"{found}, a load of {load:.1f} on them: the speeds below are those of a busy machine" if busy else found, note=busy)]


def _threads() -> list[Finding]:
    """More threads than cores make every update wait for the slowest."""
    cores, set_to = granted_cores(), os.environ.get("OMP_NUM_THREADS", "")
    most = max(1, math.floor(cores))
    if set_to.strip().isdigit() and int(set_to) > most:
        found = f"OMP_NUM_THREADS is {set_to} on {cores:.3g} cores: they would wait for each other"
        return [Finding("threads", found, f"export OMP_NUM_THREADS={most}")]
    if not set_to and most < usable_cores():
        found = f"libraries see {usable_cores()} cores, of which {cores:.3g} are granted: they would start too many threads"
        return [Finding("threads", found, f"export OMP_NUM_THREADS={most}")]
    if not can_start_threads(LEAST_THREADS):
        return [Finding("threads", f"fewer than {LEAST_THREADS} more threads can be started", "ulimit -u unlimited")]
    default = RunConfig().threads
    if default > most:
        return [Finding("threads", f"training starts {default} threads on {cores:.3g} cores; give --threads {most}", note=True)]
    found = f"training starts {default} on {cores:.3g} cores (change it with --threads)"
    return [Finding("threads", f"{found}; OMP_NUM_THREADS is {set_to or 'not set'}")]


def _memory() -> list[Finding]:
    free = free_memory()
    if math.isinf(free):
        return [Finding("memory", "this system does not say how much is free", note=True)]
    found = f"{free / 1e9:.1f} GB can be had"
    if free < LEAST_MEMORY:
        return [Finding("memory", f"{found}; a run needs {LEAST_MEMORY / 1e9:.0f} GB", "end other programs, or raise the container's memory limit")]
    return [Finding("memory", found if free >= COMFORTABLE_MEMORY else f"{found}: one run at a time", note=free < COMFORTABLE_MEMORY)]


def _room() -> list[Finding]:
    return [_room_in("room: runs", RUNS, "--output-dir"), _room_in("room: demos", Path(DemonstrationConfig.folder), "--demonstrations.folder")]


def _room_in(subject: str, folder: Path, flag: str) -> Finding:
    free = free_bytes(folder)
    found = f"{free / 1e9:.1f} GB free on the volume of {existing(folder)}"
    if free < LEAST_FREE_BYTES:
        return Finding(subject, f"{found}; a run needs {LEAST_FREE_BYTES / 1e6:.0f} MB", f"make room there, or choose another folder with {flag}")
    return Finding(subject, found if free >= COMFORTABLE_ROOM else f"{found}: enough for few runs", note=free < COMFORTABLE_ROOM)


def _writing() -> list[Finding]:
    own, temporary = "work in a folder of yours, or give --output-dir", "export TMPDIR=$HOME/tmp; mkdir -p $HOME/tmp"
    places = {str(existing(RUNS)): own, tempfile.gettempdir(): temporary}
    refused = []
    for place, fix in places.items():
        try:
            try_to_write(Path(place))
        except OSError as error:
            refused.append(Finding("writing", f"{place} cannot be written ({error.strerror})", fix))
    return refused or [Finding("writing", f"{' and '.join(places)} can be written")]


def _open_files() -> list[Finding]:
    soft, hard = open_file_limits()
    if soft < LEAST_OPEN_FILES:
        raised = int(min(ADVISED_OPEN_FILES, hard))
        fix = f"ulimit -n {raised}" if raised >= LEAST_OPEN_FILES else "ask the administrator for more open files (limits.conf: nofile)"
        return [Finding("open files", f"at most {soft:.0f}; worker processes may need {LEAST_OPEN_FILES}", fix)]
    return [Finding("open files", "no limit" if math.isinf(soft) else f"at most {soft:.0f}")]


# Trials ------------------------------------------------------------------------------------------------------------------------------------


def _simulator() -> list[Finding]:
    """The golden episodes, played in a process of their own."""
    try:
        # A back end that does not load would end the import of mujoco; that is what `_rendering` looks at.
        found = _tried("golden", TRIAL_LIMIT_S, {"OMP_NUM_THREADS": "1", "MUJOCO_GL": "disable"})
    except NoAnswer as failure:
        return [Finding("simulator", f"the golden episodes could not be played: {failure}", _mended(failure, _reinstall()))]
    speed = Finding("speed", f"{found['steps'] / found['seconds']:.0f} simulator steps/s on one core, with loading and resets")
    number = found["episodes"]
    if found["verdict"] == "identical":
        words = f"{number} expert episodes of {len(_golden_tasks())} tasks, identical to the recorded ones to the last bit"
        return [Finding("simulator", words), speed]
    if found["verdict"] == "last bits":
        words = f"{number} expert episodes with the same successes; last bits differ (another processor): figures may differ within their intervals"
        return [Finding("simulator", words, note=True), speed]
    tasks = ", ".join(found["tasks"])
    return [Finding("simulator", f"expert episodes go another way than recorded in {tasks} ({found['worst']})", _reinstall()), speed]


def _rendering() -> list[Finding]:
    """One working back end is enough: EGL, which may use a graphics card, or OSMesa, which never does."""
    from reconverge.envs.rendering import BACK_ENDS

    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    drawn, failed = {}, {}
    for back_end in dict.fromkeys([*([chosen] if chosen else []), *BACK_ENDS]):
        try:
            drawn[back_end] = _tried("renderer", RENDERER_LIMIT_S, {"MUJOCO_GL": "disable"}, back_end)["by"]
        except NoAnswer as failure:
            failed[back_end] = str(failure)
    return [_rendering_verdict(chosen, drawn, failed)]


def _rendering_verdict(chosen: str, drawn: dict[str, str], failed: dict[str, str]) -> Finding:
    """`drawn`: back end -> what OpenGL calls itself; `failed`: back end -> why it draws nothing."""
    works = "; ".join(f"{name} draws{f' with {by}' if by else ''}" for name, by in drawn.items())
    not_here = "; ".join(f"{name} does not ({why})" for name, why in failed.items())
    if not drawn:
        return Finding("rendering", f"no off-screen OpenGL; training works, videos do not: {not_here}", OPENGL)
    if chosen in failed:
        fix = f"unset MUJOCO_GL, or export MUJOCO_GL={next(iter(drawn))}"
        found = f"MUJOCO_GL={chosen} draws nothing ({failed[chosen]}) and may stop mujoco from loading; {next(iter(drawn))} draws"
        return Finding("rendering", found, fix)
    unneeded = f"; not here and not needed: {', '.join(failed)}" if failed else ""
    return Finding("rendering", f"{works}{unneeded}")


def _torch() -> list[Finding]:
    try:
        found = _tried("torch", TRIAL_LIMIT_S, {"OMP_NUM_THREADS": str(max(1, min(RunConfig().threads, math.floor(granted_cores()))))})
    except NoAnswer as failure:
        return [Finding("torch", f"it could not be tried: {failure}", _mended(failure, _pip("--force-reinstall", "torch")))]
    device = f"cuda ({found['cuda']}): use --device cuda" if found["cuda"] else "cpu only"
    return [Finding("torch", f"{device}; about {found['updates_per_s']:.0f} gradient updates/s on {found['threads']} CPU threads")]


def _tried(trial: str, limit_s: float, environment: dict[str, str], *words: str) -> dict[str, Any]:
    """What a trial answers; raises NoAnswer."""
    arguments = ", ".join(map(repr, (trial, *words)))
    said = in_a_process(f"from reconverge.launch.doctor_trials import answer; answer({arguments})", limit_s, environment)
    try:
        return dict(json.loads(said.splitlines()[-1]))
    except (IndexError, ValueError, TypeError) as error:
        raise NoAnswer(f"it answered {said[-80:]!r}") from error


# Words -------------------------------------------------------------------------------------------------------------------------------------


def _mended(failure: NoAnswer, fix: str) -> str:
    """`fix`, but ahead of it another try where the machine may only have been busy."""
    return f"run it again when the machine is idle; if it stays: {fix}" if isinstance(failure, TooSlow) else fix


def _pip(*words: str) -> str:
    return f"{sys.executable} -m pip install {' '.join(words)}"


def _reinstall() -> str:
    """The line that brings the pinned simulator back, whatever was done to its files."""
    from reconverge.envs.golden_episodes import read_golden

    return _pip("--force-reinstall --no-deps", *(f"{name}=={pin}" for name, pin in read_golden().versions.items()))


def _golden_tasks() -> set[str]:
    from reconverge.envs.golden_episodes import read_golden

    return {episode.task for episode in read_golden().episodes}


def _name_of(requirement: str) -> str:
    return re.split("[<>=!~]", requirement)[0]


QUICK: dict[str, Check] = {
    "python": _python,
    "packages": _packages,
    "pinned pair": _pinned,
    "machine": _machine,
    "threads": _threads,
    "memory": _memory,
    "room": _room,
    "writing": _writing,
    "open files": _open_files,
}
TRIALS: dict[str, Check] = {"simulator": _simulator, "rendering": _rendering, "torch": _torch}
NEEDED = ("python", "packages")
"""Without these a trial can only fail."""
_HELP = {
    "packages": f"in the clone of reconverge: {sys.executable} -m pip install --force-reinstall -e .",
    "room": "look whether the volumes of runs/ and of the demonstrations answer: df -h .",
    "writing": "look whether the volumes of runs/ and /tmp answer: df -h . /tmp",
}
