"""Named configurations: the base that `reconverge train --preset NAME` starts from and flags override.

Measured on two CPU cores; see the README for what each run gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import UnknownName
from reconverge.envs.task_files import task_file
from reconverge.eval.config import EvaluationConfig, RecoveryConfig
from reconverge.eval.recovery import paper_grid
from reconverge.launch.config import RunConfig
from reconverge.policy.config import OptimizerConfig, PolicyConfig, ResidualMLPConfig, TrainConfig, TrustRegionConfig, UnetConfig
from reconverge.replay.config import GeneratorConfig, ReplayConfig


@dataclass(frozen=True)
class Preset:
    description: str
    config: RunConfig


SCRIPTED = PolicyConfig(temperature=0.0, trained_timesteps="sampler")
"""For demonstrations of one scripted expert, who does one thing in one situation: there is nothing to sample (docs/results_earlier.md)."""
PATIENT = DemonstrationConfig(hold_steps=20, paces=(1.0, 0.7, 0.5, 0.35), hasty=False)
"""An expert that is never hasty, tries again more slowly where it fails, and goes on to its goal after the first success (docs/results.md)."""
CLOSE = ReplayConfig(generator=GeneratorConfig(touch_scale_m=0.05))
"""A generator that is told finely where hand, object and goal are to each other when they are close (docs/results.md)."""
FIRM = TrainConfig(replay_weight=10.0)
"""Earlier tasks weigh ten times the new one, whose gradient is large at a switch and would carry the others away (docs/results.md)."""

PRESETS: dict[str, Preset] = {
    "smoke": Preset(
        "three conflicting point-mass tasks, seconds: does everything work here?",
        RunConfig(
            curriculum="point-reach:3",
            threads=1,
            policy=PolicyConfig(mlp=ResidualMLPConfig(width=128, blocks=2), timesteps=50, sampling_steps=5, temperature=0.0),
            train=TrainConfig(updates=500, batch_size=128, trust_region=TrustRegionConfig(draws=1024), log_every=10),
            replay=ReplayConfig(
                windows_per_task=1024,
                generator=GeneratorConfig(width=128, blocks=2, sampling_steps=10, updates=500, batch_size=128, learning_rate=1e-3),
            ),
            demonstrations=DemonstrationConfig(episodes=60),
            evaluation=EvaluationConfig(episodes=20),
            recovery=RecoveryConfig(episodes=10, grid=(2, 10, 50, 150, 300), probe_updates=300),
        ),
    ),
    "quickstart": Preset(
        "the first three tasks of Continual World 10, two minutes on two CPU cores",
        RunConfig(
            curriculum="cw10:3",
            policy=SCRIPTED,
            demonstrations=PATIENT,
            replay=CLOSE,
            train=replace(FIRM, updates=1500),
            recovery=RecoveryConfig(grid=(2, 10, 50, 100, 200, 500, 1000)),
        ),
    ),
    "cw10": Preset(
        "Continual World 10 with the small network, nine minutes on two CPU cores",
        RunConfig(curriculum="cw10", policy=SCRIPTED, demonstrations=PATIENT, replay=CLOSE, train=FIRM),
    ),
    "cw10-paper": Preset(
        "Continual World 10 with the published network and budget; needs a GPU",
        RunConfig(
            curriculum="cw10",
            device="cuda",
            policy=PolicyConfig(
                window=6,
                horizon=8,
                executed=2,
                past_actions=5,
                relative_scales_m=(),
                denoiser="unet",
                unet=UnetConfig(channels=(256, 512, 1024), kernel=5, groups=8, timestep_features=512, attention_heads=8),
                task_conditioned=False,
                timesteps=1000,
                sampler="ddim",
                sampling_steps=50,
            ),
            train=TrainConfig(
                updates=50_000,
                batch_size=256,
                replay_ratio=1.0,
                optimizer=OptimizerConfig(learning_rate=2e-4, weight_decay=0.0, schedule="constant", max_gradient_norm=0.0),
                trust_region=TrustRegionConfig(strength=12.0, draws=20_000),
            ),
            # 2,500 replayed rollouts per task; a window of each of their 200 steps would not fit, so ten per rollout stand for it.
            replay=ReplayConfig(windows_per_task=25_000, generator=GeneratorConfig(width=256, batch_size=256, updates=50_000, learning_rate=2e-4)),
            demonstrations=DemonstrationConfig(episodes=2500),
            evaluation=EvaluationConfig(episodes=100),
            recovery=RecoveryConfig(episodes=100, grid=paper_grid(50_000)),
        ),
    ),
}


def find_preset(name: str) -> RunConfig:
    """The configuration of a preset; UnknownName, with the nearest one, otherwise."""
    if name not in PRESETS:
        raise UnknownName("preset", name, PRESETS)
    return PRESETS[name].config


def runs_folder(preset: str, curriculum: str) -> str:
    """What the runs of a preset lie in: `quickstart`; with another curriculum, whose figures are not to be compared, `quickstart-mine`."""
    if curriculum == find_preset(preset).curriculum:
        return preset
    name = Path(curriculum).stem if Path(curriculum).suffix in (".yaml", ".yml") else curriculum
    return f"{preset}-{task_file(name.replace(':', '-'))}"
