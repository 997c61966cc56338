"""A task: what is observed, how long an episode lasts and what success means.

An episode is a pure function of (task, episode seed, actions): the seed fixes the goal, the object
placement and everything else that varies.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconverge.envs.expert_source import ExpertSource


@dataclass(frozen=True)
class ObservationLayout:
    """Which entries of an observation are redundant, so that a generator need not invent them.

        Meta-World, 39 numbers:   [ frame 0:18 | previous frame 18:36 | goal 36:39 ]

    Ranges are (start, stop). `previous` repeats `frame` one step earlier; `constant` does not change
    within an episode. A plain observation is all `frame`. `positions` are the entries at which positions begin, three numbers each, in
    metres and in one coordinate system, whose differences mean something: hand, objects, goal.
    """

    frame: tuple[int, int]
    previous: tuple[int, int] | None = None
    constant: tuple[int, int] | None = None
    positions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError for a position that does not lie within what a window's code holds: the frame, or what is constant."""
        held = [bounds for bounds in (self.frame, self.constant) if bounds]
        for start in self.positions:
            if not any(low <= start and start + 3 <= high for low, high in held):
                raise ValueError(f"the position that begins at {start} must lie within one of {held}")


@dataclass(frozen=True)
class Task:
    """One control task.

    Attributes:
        name: official name, such as `hammer-v3`.
        family: which adapter simulates it: `metaworld`, `point-reach` or `gym`.
        observation_size: Do.
        action_size: Da; actions are always in [-1, 1], an adapter rescales where a simulator differs.
        horizon: steps after which the episode ends.
        control_dt_s: simulated seconds per step.
        success: what counts as success, in words.
        layout: the structure of an observation.
        observation_centre, observation_scale: the range in which observations are expected, (Do,) each,
            in the observation's units; None when unknown. The normaliser uses them, so that it need
            not change from stage to stage.
        action_bounds: lowest and highest action, (Da,) each, in the simulator's own units; None where these are -1 and 1.
        expert: who demonstrates it; None: the scripted expert of its family.
    """

    name: str
    family: str
    observation_size: int
    action_size: int
    horizon: int
    control_dt_s: float
    success: str
    layout: ObservationLayout
    observation_centre: tuple[float, ...] | None = None
    observation_scale: tuple[float, ...] | None = None
    action_bounds: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    expert: ExpertSource | None = None
