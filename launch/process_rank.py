"""Which of the processes of one run this is: torchrun starts them, and tells each in its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from reconverge.envs.errors import ConfigError
from reconverge.launch.config import RunConfig


@dataclass(frozen=True)
class ProcessRank:
    """`rank` in 0..`count` - 1, `local` the same among the processes of this machine."""

    rank: int
    count: int
    local: int


def process_rank() -> ProcessRank | None:
    """None where this process is a run by itself."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    return ProcessRank(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))


def check_shares(config: RunConfig, place: ProcessRank) -> None:
    """Raise ConfigError where a run cannot be shared out among so many processes."""
    if config.device not in ("cpu", "cuda"):
        raise ConfigError(
            f"device is '{config.device}' and torchrun started {place.count} processes; use --device cuda, each takes its own GPU, or cpu"
        )
    if config.train.batch_size < 2 * place.count:
        raise ConfigError(
            f"train.batch_size is {config.train.batch_size} and torchrun started {place.count} processes; each needs two rows or more, start fewer"
        )
    if config.device == "cuda":
        import torch

        if place.local >= torch.cuda.device_count():
            raise ConfigError(f"torchrun started more processes on this machine than its {torch.cuda.device_count()} GPUs; lower --nproc-per-node")
