"""Settings of what learns. Frozen data without torch, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

SamplerName = Literal["ddpm", "ddim", "dpm-solver++"]
Weighting = Literal["fixed", "tasks-seen"]


@dataclass(frozen=True)
class ResidualMLPConfig:
    width: int = 256
    """Units of the residual stream."""
    blocks: int = 3
    """Residual blocks."""
    timestep_features: int = 32
    """Sinusoidal features of the diffusion timestep."""


@dataclass(frozen=True)
class UnetConfig:
    channels: tuple[int, ...] = (256, 512, 1024)
    """Channels of each level."""
    kernel: int = 5
    """Kernel of the convolutions along the action sequence."""
    groups: int = 8
    """Groups of GroupNorm."""
    timestep_features: int = 512
    """Sinusoidal features of the diffusion timestep; their MLP is four times as wide inside."""
    attention_heads: int = 8
    """Heads of the self-attention layers at the two deepest levels and the bottleneck; 0 leaves attention out."""


@dataclass(frozen=True)
class PolicyConfig:
    window: int = 2
    """To: observation steps given to the policy."""
    horizon: int = 4
    """H: action steps predicted."""
    executed: int = 4
    """Ha: action steps executed before the next prediction."""
    past_actions: int = 0
    """Predicted steps that lie before the current one (the published indexing uses To - 1)."""
    denoiser: Literal["residual-mlp", "unet"] = "residual-mlp"
    """Network that predicts the noise."""
    mlp: ResidualMLPConfig = field(default_factory=ResidualMLPConfig)
    """Used by `residual-mlp`."""
    unet: UnetConfig = field(default_factory=UnetConfig)
    """Used by `unet`."""
    relative_scales_m: tuple[float, ...] = (0.05, 0.01)
    """Length scales in metres at which the differences between the positions that a task declares are shown to the network; empty: none."""
    task_conditioned: bool = True
    """Whether the policy is told which task it is in (a one-hot vector beside the observations)."""
    timesteps: int = 100
    """N: timesteps of the noise schedule."""
    trained_timesteps: Literal["all", "sampler"] = "all"
    """At which of them the policy is trained: all N, or those alone at which its sampler asks. Then no other sampler or number of steps will do."""
    sampler: SamplerName = "dpm-solver++"
    """Sampler used to act."""
    sampling_steps: int = 4
    """Denoising steps of the sampler."""
    temperature: float = 1.0
    """Standard deviation of the noise that an action is denoised from when acting, as a share of that in training. 1 samples the learned
    distribution; 0 denoises from its centre, so that the same observations give the same actions. Not for `ddpm`."""
    ema_decay: float = 0.99
    """Decay of the exponential moving average of the weights, with which the policy acts."""


@dataclass(frozen=True)
class OptimizerConfig:
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 1e-4
    """Decoupled weight decay."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """Learning rate within a stage: cosine warm-up and decay, or constant as published."""
    warmup_fraction: float = 0.1
    """Share of the stage over which one-cycle warms up."""
    max_gradient_norm: float = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""
    carry_second_moment: bool = False
    """Whether AdamW's second moment is carried from stage to stage, so that the first steps after a switch are not a fresh optimizer's."""


@dataclass(frozen=True)
class TrustRegionConfig:
    strength: float = 12.0
    """lambda of the penalty (lambda / 2) * sum_i d_i^T F_i d_i, d_i = theta - theta_i*, under a mean-reduced loss (equation 8)."""
    draws: int = 4096
    """(window, timestep, noise) draws from which the Fisher is estimated."""
    fisher: Literal["rank-1", "diagonal"] = "rank-1"
    """Form of every F_i: c mu mu^T, or the diagonal of classical EWC."""
    form: Literal["penalty", "constraint", "functional"] = "penalty"
    """`penalty` adds that sum to the loss; `constraint` keeps it within `radius` by projecting every step (equation 6);
    `functional` (ours) bounds the distance from the teacher in outputs instead of parameters, through the weight of the replay loss."""
    radius: float = 0.01
    """delta: how far theta may travel from all optima together (`constraint`, in squared units of the loss), or how far the replay loss may
    rise (`functional`, in units of the loss)."""


@dataclass(frozen=True)
class L2Config:
    strength: float = 200.0
    """lambda of (lambda / 2) ||theta - theta*||^2, counted once per earlier stage. Published: 1e5 without the half, under a loss of up to 1000."""


@dataclass(frozen=True)
class MASConfig:
    strength: float = 2.0
    """lambda of (lambda / 2) sum_p Omega_p (theta_p - theta_p*)^2. Published: 1 without the half."""
    draws: int = 4096
    """(window, timestep, noise) draws from which the importance is estimated."""


@dataclass(frozen=True)
class SIConfig:
    strength: float = 2.0
    """lambda of (lambda / 2) sum_p Omega_p (theta_p - theta_p*)^2. Published: c = 1 without the half, old and new tasks of equal weight."""
    damping: float = 1e-3
    """xi, in squared units of the parameters: bounds the importance of those that hardly moved. Published."""


@dataclass(frozen=True)
class MetaConfig:
    inner_learning_rate: float = 1e-4
    """Step of plain gradient descent on the support batch."""
    momentum: float = 0.15
    """m of the variance reduction d_k = h_k + m (d_{k-1} - h_{k-1}); `vr-mcl` only."""


@dataclass(frozen=True)
class UpdateBudgetConfig:
    form: Literal["soft", "hard"] = "soft"
    """`soft` scales the step of every module; `hard` trains some modules and freezes the others."""
    control: Literal["none", "opposite", "random", "constant"] = "none"
    """A control in place of the alignment: its opposite sign, random modules, or the same budget whatever the alignment."""
    least: float = 0.2
    """rho_min: smallest step multiplier (soft), smallest share of trained modules (hard)."""
    sharpness: float = 10.0
    """k of rho = rho_min + (1 - rho_min) sigmoid(k (kappa - s)), s the alignment."""
    threshold: float = 0.0
    """kappa: a task whose alignment with the last stage's move lies above it counts as related and is given less."""
    draws: int = 1024
    """Windows from which the gradients and the curvature of the modules are measured."""


@dataclass(frozen=True)
class TrainConfig:
    updates: int = 2000
    """Gradient updates per stage, unless the curriculum gives its own."""
    batch_size: int = 256
    """Windows of the current task per update."""
    replay_ratio: float = 1.0
    """Replayed windows per current window, once there are earlier tasks. Read by every method that replays but `ftml` and `vr-mcl`."""
    replay_weight: float = 1.0
    """beta: weight of the replay loss against the current task's. Read by `replay`, `trust-region`, `adaptive-trust-region` and `vr-mcl`."""
    weighting: Weighting = "fixed"
    """`fixed` weighs current and replay 1 : beta; `tasks-seen` weighs them 1/k : (k-1)/k in the k-th task (Masip et al.), beta left out.
    Read by `replay`, `trust-region` and `adaptive-trust-region`; `t-dgr` always does the latter."""
    replay_priority: float = 0.0
    """Share of the replayed windows, 0 to 1, that goes to the earlier tasks in proportion to their replay losses, measured every 25 updates;
    the rest goes to all alike. Read by `replay`, `trust-region` and `adaptive-trust-region`."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """AdamW, re-created at every stage; its second moment may be carried over."""
    trust_region: TrustRegionConfig = field(default_factory=TrustRegionConfig)
    """Used by `ewc` and `trust-region`, and by `adaptive-trust-region`."""
    distillation: Literal["method", "teacher", "noise"] = "method"
    """Target of replayed windows: the frozen teacher's predicted noise, the noise that was added, or whichever the method was published with."""
    l2: L2Config = field(default_factory=L2Config)
    """Used by `l2`."""
    mas: MASConfig = field(default_factory=MASConfig)
    """Used by `mas`."""
    si: SIConfig = field(default_factory=SIConfig)
    """Used by `si`."""
    meta: MetaConfig = field(default_factory=MetaConfig)
    """Used by `ftml` and `vr-mcl`."""
    update_budget: UpdateBudgetConfig = field(default_factory=UpdateBudgetConfig)
    """Used by `adaptive` and `adaptive-trust-region`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which the networks multiply in an update. Weights, moments, averages, the Fisher and whoever acts stay float32."""
    log_every: int = 25
    """Updates between two rows of metrics.jsonl."""

    @property
    def replayed(self) -> int:
        """Windows of earlier tasks in an update."""
        return round(self.batch_size * self.replay_ratio)
