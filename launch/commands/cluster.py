"""Where the parts of a command run: the options that `sweep`, `collect` and `evaluate` share, and their checks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from reconverge.envs.errors import ConfigError
from reconverge.launch.commands.command import MaybeFloat, MaybeInt, at_least

if TYPE_CHECKING:
    from reconverge.launch.ray_backend import RayBackend

RayAddress = Annotated[str, tyro.conf.arg(metavar="auto|local|HOST:PORT")]


@dataclass(frozen=True)
class Cluster:
    backend: Literal["local", "ray"] = "local"
    """Where the work is done: in this process with its simulators, or in parts as tasks of a Ray cluster. No result depends on it."""
    jobs: MaybeInt = None
    """Parts at a time on Ray; as many as the nodes hold when left out."""
    cpus_per_job: MaybeFloat = None
    """Processors that a part asks of Ray, also a fraction; its threads when left out."""
    gpus_per_job: MaybeFloat = None
    """GPUs that a part asks of Ray; 0.25 lets four parts share one. When left out 1 for a policy on cuda, else 0."""
    ray_address: RayAddress = "auto"
    """The Ray cluster: HOST:PORT; `auto`: that of $RAY_ADDRESS or of this machine; `local`: a new one of this machine, for this command alone."""

    def check(self, also: Mapping[str, bool] | None = None) -> None:
        """Raise ConfigError for numbers that make no sense, and for options of Ray, `also` those given here, without it."""
        check_needs(self.backend, self.jobs, self.cpus_per_job, self.gpus_per_job)
        given = {
            "--jobs": self.jobs is not None,
            "--cpus-per-job": self.cpus_per_job is not None,
            "--gpus-per-job": self.gpus_per_job is not None,
            "--ray-address": self.ray_address != "auto",
            **(also or {}),
        }
        check_owners(self.backend, {flag: (is_given, ("ray",)) for flag, is_given in given.items()})

    @contextlib.contextmanager
    def connected(self, threads: int, device: str) -> Iterator[tuple[RayBackend, int]]:
        """Ray, and how many parts with these threads on this device run at once."""
        from reconverge.launch import ray_backend

        with ray_backend.connected(self.ray_address, self.cpus_per_job, self.gpus_per_job) as ray:
            room = ray.room([ray.need(threads, device)])
            yield ray, self.jobs or room


def check_needs(backend: str, jobs: int | None, cpus: float | None, gpus: float | None) -> None:
    """Raise ConfigError for what cannot be asked of a back end."""
    at_least("--jobs", jobs, 1)
    for flag, value, least in (("--cpus-per-job", cpus, 0.01), ("--gpus-per-job", gpus, 0.0)):
        if value is not None and not least <= value < inf:
            raise ConfigError(f"{flag} is {value}; it must be at least {least:g}")
    if backend == "ray" and (gpus or 0) > 1 and gpus != int(gpus or 0):
        raise ConfigError(f"--gpus-per-job is {gpus}; Ray gives fractions of one GPU only, or whole ones")


def check_owners(backend: str, own: Mapping[str, tuple[bool, tuple[str, ...]]]) -> None:
    """Raise ConfigError for an option of another back end; `own` says of each whether it is given, and the back ends that it goes with."""
    for flag, (given, backends) in own.items():
        if given and backend not in backends:
            raise ConfigError(f"{flag} goes with --backend {' or '.join(backends)}, and this is {backend}; leave it out")
