"""The numbers a generator has to invent for a window of observations, and the window rebuilt from them.

An observation of Meta-World repeats itself: 18 numbers of the frame, the same 18 one step earlier, 3 of the goal.
A window of To = 2 observations (78 numbers) therefore holds three frames and one goal (57 numbers):

    window      o[k-1] = frame[k-1] | frame[k-2] | goal        o[k] = frame[k] | frame[k-1] | goal
    code        frame[k] | frame[k] - frame[k-1] | frame[k-1] - frame[k-2] | goal

Generating the code and rebuilding the window makes every window consistent by construction. The newest
frame is coded as it is and the older ones as differences, because a step moves the hand by a centimetre while
the frames spread over half a metre: as differences the velocities are numbers of their own size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reconverge.envs.task import ObservationLayout


class WindowCode:
    """Codes windows of `window` observations with the given layout."""

    def __init__(self, layout: ObservationLayout, window: int) -> None:
        self.layout, self.window = layout, window
        self.frame_size = layout.frame[1] - layout.frame[0]
        self.constant_size = layout.constant[1] - layout.constant[0] if layout.constant else 0
        self.frames = window + (1 if layout.previous else 0)

    @property
    def size(self) -> int:
        return self.frames * self.frame_size + self.constant_size

    @property
    def places(self) -> tuple[int, ...]:
        """Where the positions that the layout declares begin in the code: those of the newest frame, and of what is constant."""
        ranges = [(self.layout.frame, 0), (self.layout.constant, self.frames * self.frame_size)]
        return tuple(
            place - bounds[0] + offset for place in self.layout.positions for bounds, offset in ranges if bounds and bounds[0] <= place < bounds[1]
        )

    def encode(self, observations: Tensor) -> Tensor:
        """(B, To, Do) -> (B, size)."""
        frames = observations[..., slice(*self.layout.frame)]
        if self.layout.previous:
            frames = torch.cat([observations[:, :1, slice(*self.layout.previous)], frames], dim=1)
        parts = [frames[:, -1], (frames[:, 1:] - frames[:, :-1]).flip(1).flatten(1)]
        if self.layout.constant:
            parts.append(observations[:, -1, slice(*self.layout.constant)])
        return torch.cat(parts, dim=1)

    def decode(self, code: Tensor) -> Tensor:
        """(B, size) -> (B, To, Do)."""
        moving = code[:, : self.frames * self.frame_size].view(-1, self.frames, self.frame_size)
        newest, steps_back = moving[:, :1], moving[:, 1:]
        frames = torch.cat([newest, newest - steps_back.cumsum(1)], dim=1).flip(1)

        size = max(bounds[1] for bounds in (self.layout.frame, self.layout.previous, self.layout.constant) if bounds)
        observations = code.new_zeros(len(code), self.window, size)
        observations[..., slice(*self.layout.frame)] = frames[:, -self.window :]
        if self.layout.previous:
            observations[..., slice(*self.layout.previous)] = frames[:, -self.window - 1 : -1]
        if self.layout.constant:
            observations[..., slice(*self.layout.constant)] = code[:, None, -self.constant_size :]
        return observations
