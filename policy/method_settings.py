"""Which settings a method reads: two runs that differ in another one are repetitions of each other. Without torch."""

from __future__ import annotations

REHEARSED = ("replay.", "train.distillation")
REPLAY = (*REHEARSED, "train.replay_ratio", "train.replay_weight", "train.replay_priority", "train.weighting")
READS: dict[str, tuple[str, ...]] = {
    "finetune": (),
    "joint": (),
    "single": (),
    "replay": REPLAY,
    "ewc": ("train.trust_region.",),
    "l2": ("train.l2.",),
    "mas": ("train.mas.",),
    "si": ("train.si.",),
    "trust-region": (*REPLAY, "train.trust_region."),
    "ftml": (*REHEARSED, "train.meta.inner_learning_rate"),
    "vr-mcl": (*REHEARSED, "train.replay_weight", "train.meta."),
    "t-dgr": (*REHEARSED, "train.replay_ratio"),
    "adaptive": ("train.update_budget.",),
    "adaptive-trust-region": (*REPLAY, "train.trust_region.", "train.update_budget."),
}
"""Every method of this package and, by how their dotted names begin, the settings of its own; all others are read by every method."""
SET_ITSELF: dict[str, tuple[str, ...]] = {"t-dgr": ("replay.pool",)}
"""Settings among these that a method sets itself, whatever they say."""
OWN: frozenset[str] = frozenset(prefix for prefixes in READS.values() for prefix in prefixes)


def is_read(setting: str, method: str) -> bool:
    """Whether a result of `method` may depend on a dotted setting; one of another package may read them all."""
    if setting in SET_ITSELF.get(method, ()):
        return False
    return method not in READS or not setting.startswith(tuple(OWN)) or setting.startswith(READS[method])
