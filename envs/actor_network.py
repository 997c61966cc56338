"""A trained actor as plain numbers: a stack of dense layers that acts in NumPy, with the scaling of its observations.

    expert.json          {"layers": ["linear", "relu", "linear", "relu", "linear", "tanh"], "observation_size": 10, ...}
    expert.safetensors   0.weight (256, 10), 0.bias (256,), 2.weight ...; observation.mean, observation.variance where it was normalised

No torch and no pickle: what `reconverge train-expert` wrote is read like any other artifact, hashes first, and a worker process needs
neither torch nor stable-baselines3 to act with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconverge.envs.artifact import Artifact, write_artifact
from reconverge.envs.errors import DamagedFile, shown

SETTINGS, WEIGHTS = "expert.json", "expert.safetensors"
VERSION = 1
MOST_LAYERS = 64
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0.0),
    "tanh": lambda x: np.tanh(x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0.0))),
}
EPSILON = 1e-8
"""Beside the variance of an observation, as in stable-baselines3's VecNormalize."""


@dataclass(frozen=True)
class ActorNetwork:
    """observation (Do,) -> action (Da,) in [-1, 1], deterministic.

    Attributes:
        layers: names in order, `linear` or an activation.
        weights: `N.weight` (out, in) and `N.bias` (out,) of every linear layer N, and the observation's `mean` and `variance`, float32.
        clip: normalised observations are clipped to [-clip, clip].
        facts: what it was trained on and how, JSON values.
    """

    layers: tuple[str, ...]
    weights: Mapping[str, np.ndarray]
    clip: float
    facts: Mapping[str, Any]

    @property
    def observation_size(self) -> int:
        return int(self.weights[f"{self._linear[0]}.weight"].shape[1])

    @property
    def action_size(self) -> int:
        return int(self.weights[f"{self._linear[-1]}.weight"].shape[0])

    @property
    def _linear(self) -> list[int]:
        return [number for number, name in enumerate(self.layers) if name == "linear"]

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Action, float64 (Da,) in [-1, 1], for an observation, (Do,), in the environment's units."""
        signal = np.asarray(observation, np.float64)
        if "observation.mean" in self.weights:
            scaled = (signal - self.weights["observation.mean"]) / np.sqrt(self.weights["observation.variance"] + EPSILON)
            signal = np.clip(scaled, -self.clip, self.clip)
        signal = signal.astype(np.float32)
        for number, name in enumerate(self.layers):
            dense = name == "linear"
            signal = self.weights[f"{number}.weight"] @ signal + self.weights[f"{number}.bias"] if dense else ACTIVATIONS[name](signal)
        return np.clip(signal.astype(np.float64), -1.0, 1.0)

    def save(self, folder: Path) -> None:
        """Write the artifact, hashed and atomically."""
        settings = {"version": VERSION, "layers": list(self.layers), "clip": self.clip, "facts": dict(self.facts)}
        write_artifact(folder, {WEIGHTS: dict(self.weights), SETTINGS: settings})

    @classmethod
    def load(cls, folder: Path) -> ActorNetwork:
        """Read what `save` wrote. Raises DamagedFile for a changed file and for layers that do not fit each other."""
        artifact = Artifact(folder)
        settings, weights = artifact.json(SETTINGS), artifact.arrays(WEIGHTS)
        try:
            if settings["version"] != VERSION:
                raise ValueError(f"it is of version {shown(settings['version'])}, this program reads {VERSION}")
            layers, clip, facts = tuple(settings["layers"]), settings["clip"], dict(settings["facts"])
            if type(clip) not in (int, float) or clip <= 0:
                raise ValueError(f"clip is {shown(clip)}")
            _check(layers, weights)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"{folder} holds no expert that can act ({str(error)[:200]}); train it again with reconverge train-expert") from error
        return cls(layers, weights, float(clip), facts)


def _check(layers: Sequence[str], weights: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError or KeyError unless the arrays are finite and form the chain of layers, and nothing else."""
    if not 1 <= len(layers) <= MOST_LAYERS or any(not isinstance(name, str) or name not in {"linear", *ACTIVATIONS} for name in layers):
        raise ValueError(f"its layers are {shown(list(layers))}")
    linear = [number for number, name in enumerate(layers) if name == "linear"]
    if not linear:
        raise ValueError("it has no linear layer")
    expected = {f"{number}.{part}" for number in linear for part in ("weight", "bias")}
    first = size = weights[f"{linear[0]}.weight"].shape[-1]
    for number in linear:
        weight, bias = weights[f"{number}.weight"], weights[f"{number}.bias"]
        if weight.ndim != 2 or weight.shape[1] != size or bias.shape != weight.shape[:1]:
            raise ValueError(f"layer {number} has the shapes {weight.shape} and {bias.shape}, {size} numbers come in")
        size = weight.shape[0]
    if "observation.mean" in weights:
        mean, variance = weights["observation.mean"], weights["observation.variance"]
        if mean.shape != (first,) or variance.shape != (first,) or not (variance >= 0).all():
            raise ValueError("its scaling does not fit its observations")
        expected |= {"observation.mean", "observation.variance"}
    if set(weights) != expected or any(array.dtype.kind != "f" or not np.isfinite(array).all() for array in weights.values()):
        raise ValueError("its arrays are not those of its layers, in finite numbers")
