"""The whole configuration of a run: frozen data, one docstring per field, saved resolved beside the results."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.eval.config import EvaluationConfig, RecoveryConfig, VideoConfig
from reconverge.policy.config import PolicyConfig, TrainConfig
from reconverge.policy.method_settings import READS
from reconverge.replay.config import ReplayConfig

METHODS: dict[str, str] = {
    "finetune": "plain training on each task in turn: the lower line",
    "joint": "all tasks at once: the upper line",
    "single": "one policy per task from scratch: nothing shared, nothing forgotten",
    "replay": "replayed windows of earlier tasks, distilled from the frozen teacher; with --replay.source stored: experience replay (ER)",
    "ewc": "a Fisher penalty around each task's optimum, rank-1 or diagonal, without replay",
    "l2": "a penalty around the last optimum, every parameter alike",
    "mas": "memory aware synapses: a penalty on the parameters to which the output is sensitive",
    "si": "synaptic intelligence: a penalty on the parameters whose path lowered the loss",
    "trust-region": "replay and the Fisher penalty, or radius, together",
    "ftml": "follow the meta leader, first order, on replayed windows",
    "vr-mcl": "variance-reduced meta-continual learning, first order, on replayed windows",
    "t-dgr": "behaviour cloning on a mixture of real and generated windows",
    "adaptive": "fine-tuning with an update budget per module from gradient alignment",
    "adaptive-trust-region": "trust-region with that update budget on top",
}
"""Every method of this package with one line of description; `own_methods` adds those of others."""
METHOD_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
"""What a method may be called: it is also the name of a folder."""
METHOD_CHOICES = f"{{{','.join(METHODS)},YOURS}}"
"""As `--help` shows them; written down here, so that help looks nothing up."""
REPLAYING: frozenset[str] = frozenset(method for method, reads in READS.items() if "replay." in reads)
"""Those of them that draw windows of earlier tasks from a replay source."""


@dataclass(frozen=True)
class RunConfig:
    curriculum: str = "cw10:3"
    """Name of a curriculum, a prefix such as `cw10:3`, a random order such as `cw10:shuffle-7`, or a YAML file."""
    method: Annotated[str, tyro.conf.arg(metavar=METHOD_CHOICES)] = "trust-region"
    """Continual-learning method: of this package, or of another installed one; `reconverge list methods` shows both."""
    seed: int = 0
    """Seed of the run: initial weights, data order, noise and generated replay. Evaluation episodes do not depend on it."""
    device: str = "cpu"
    """Torch device of the policy and the generator: `cpu`, `cuda`, `cuda:1`."""
    threads: int = 2
    """Torch threads on the CPU."""
    save_minutes: float = 5.0
    """Minutes between two saves within a stage: the most learning that a crash can lose. Changes no result."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    demonstrations: DemonstrationConfig = field(default_factory=DemonstrationConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
