"""What can be wrong with an installation, looked for one by one; each finding carries its fix."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass

import numpy as np

from reconverge.envs.errors import ReconvergeError
from reconverge.launch.fingerprint import machine, package_versions, usable_cores

MEASURED_FOR_S = 1.0


@dataclass(frozen=True)
class Finding:
    subject: str
    found: str
    fix: str = ""
    """What to run when something is wrong; empty when all is well."""

    @property
    def fine(self) -> bool:
        return not self.fix

    def __str__(self) -> str:
        line = f"{'ok ' if self.fine else 'FIX'}  {self.subject:<12}{self.found}"
        return line if self.fine else f"{line}\n                 fix: {self.fix}"


def examine() -> list[Finding]:
    """All findings; takes a few seconds."""
    findings = [_python(), *_packages(), Finding("machine", machine())]
    if all(finding.fine for finding in findings):
        findings += [_torch(), _rendering(), _update_speed(), _simulator_speed()]
    return findings


def _python() -> Finding:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    return Finding("python", f"{platform.python_version()} ({sys.executable})", "" if supported else "use Python 3.11, 3.12 or 3.13")


def _packages() -> list[Finding]:
    versions = package_versions()
    absent = [name for name, version in versions.items() if version == "absent"]
    if absent:
        return [Finding("packages", f"missing: {', '.join(absent)}", f"{sys.executable} -m pip install {' '.join(absent)}")]
    return [Finding("packages", ", ".join(f"{name} {version}" for name, version in versions.items()))]


def _torch() -> Finding:
    import torch

    device = f"cuda ({torch.cuda.get_device_name()}): use --device cuda" if torch.cuda.is_available() else "cpu only"
    return Finding("torch", f"{device}; {torch.get_num_threads()} threads on {usable_cores()} cores (set them with --threads)")


def _rendering() -> Finding:
    from reconverge.envs.rendering import find_renderer

    try:
        return Finding("rendering", f"off-screen OpenGL by {find_renderer()}")
    except ReconvergeError as missing:
        # Only videos need it, but they are half of what a run is for.
        return Finding("rendering", "no off-screen OpenGL; training works, videos do not", str(missing).rpartition("with: ")[2])


def _update_speed() -> Finding:
    """Forward, backward and AdamW step of a network of the default size, batch 256 + 256."""
    import torch

    layers = [layer for _ in range(6) for layer in (torch.nn.Linear(256, 256), torch.nn.SiLU())]
    network, batch = torch.nn.Sequential(*layers), torch.zeros(512, 256)
    optimizer = torch.optim.AdamW(network.parameters())

    def update() -> None:
        optimizer.zero_grad()
        network(batch).square().mean().backward()
        optimizer.step()

    update()
    done, started_s = 0, time.perf_counter()
    while time.perf_counter() - started_s < MEASURED_FOR_S:
        update()
        done += 1
    return Finding("updates", f"about {done / (time.perf_counter() - started_s):.0f} gradient updates/s on the CPU")


def _simulator_speed() -> Finding:
    from reconverge.envs.tasks import find_task, make_env

    try:
        env = make_env(find_task("hammer-v3"))
    except (ImportError, OSError) as error:
        return Finding("simulator", f"Meta-World does not load ({error})", f"{sys.executable} -m pip install mujoco==3.3.0 metaworld==3.1.1")
    still = np.zeros(env.task.action_size)
    try:
        env.reset(seed=1)
        done, started_s = 0, time.perf_counter()
        while time.perf_counter() - started_s < MEASURED_FOR_S:
            *_, truncated, _ = env.step(still)
            done += 1
            if truncated:
                env.reset(seed=1)
    finally:
        env.close()
    return Finding("simulator", f"about {done / (time.perf_counter() - started_s):.0f} steps/s of hammer-v3 per core")
