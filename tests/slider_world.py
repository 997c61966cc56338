"""A tiny environment of somebody's own, and experts for it: what a user's module looks like to reconverge."""

import time
from typing import ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class Slider(gymnasium.Env):
    """One number, to be pushed to 1 by actions in [-2, 6]; it reports `gap` and `speed`, and no success."""

    def __init__(self, gain: float = 1.0, label: str = "", sizes: int = 1) -> None:
        self.observation_space = Box(-10.0, 10.0, (sizes,), np.float32)
        self.action_space = Box(np.float32([-2.0]), np.float32([6.0]))
        self.gain, self.sizes, self.state = gain, sizes, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = float(self.np_random.uniform(-1, 0.5))
        return self._seen(), self._info()

    def step(self, action):
        self.last_action = np.array(action)
        self.state = float(np.clip(self.state + 0.05 * self.gain * action[0], -10, 10))
        return self._seen(), -self._info()["gap"], False, False, self._info()

    def _info(self):
        gap = abs(self.state - 1.0)
        return {"gap": gap, "solved": gap < 0.1, "word": "x"}

    def _seen(self):
        return np.full(self.sizes, self.state, np.float32)


class Painted(Slider):
    """Its goal is placed at reset and in no state; a picture is all of the goal's grey."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None, **options):
        super().__init__(**options)
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        seen = super().reset(seed=seed)
        self.goal = int(self.np_random.integers(256))
        return seen

    def render(self):
        return np.full((4, 4, 3), self.goal, np.uint8)


gymnasium.register("Painted-v0", "slider_world:Painted", max_episode_steps=25)
gymnasium.register("Endless-v0", "slider_world:Slider")
gymnasium.register("OwnSlider-v0", "slider_world:Slider", max_episode_steps=25)


def push(observation):
    """In the environment's own units: at most 6, at least -2."""
    return np.array([np.clip(20.0 * (1.0 - observation[0]), -2.0, 6.0)])


def ponder(observation):
    time.sleep(0.08)
    return 0.1 * push(observation)


def too_many(observation):
    return np.zeros(3)


def not_a_number(observation):
    return [np.nan]


NUMBER = 7
