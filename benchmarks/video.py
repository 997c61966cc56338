"""Video: what recording costs an evaluation, and how fast pictures are drawn.

    recording   `rollout` that keeps the physics states of every episode against the same rollout without
    drawing     our Painter (no shadows, reflections or multi-sampling) against gymnasium's MujocoRenderer, the one behind
                RecordVideo, with the settings that Meta-World's scenes come with: same state, camera and size

The pictures differ by those effects and by our marks of the goal, so the kind is "fewer effects" and the gate only asks that both
show the same scene.
"""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.evaluation import EASY
from benchmarks.harness import Bench, Equality, GateFailed, Peer, Side, identical
from benchmarks.policies import untrained
from benchmarks.stock_metaworld import make_stock, reset_stock
from reconverge.envs.errors import RenderingUnavailable
from reconverge.envs.metaworld_model import CAMERA
from reconverge.envs.rendering import find_renderer
from reconverge.envs.simulators import EpisodeStart, Simulators
from reconverge.envs.tasks import find_task, make_env
from reconverge.eval.config import EvaluationConfig
from reconverge.eval.rollout import Rollouts, evaluation_starts, rollout
from reconverge.policy.config import PolicyConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy

TASK = find_task(EASY[0])
SEED = 5
LEAST_CORRELATION = 0.8


def run(bench: Bench) -> None:
    _recording(bench)
    _drawing(bench)


def _recording(bench: Bench) -> None:
    policy = untrained(PolicyConfig(sampling_steps=bench.pick(10, 10, 2)), [TASK.name]).clone()
    starts = evaluation_starts([TASK], bench.pick(50, 20, 2))
    workers = bench.pick(EvaluationConfig().workers, EvaluationConfig().workers, 0)
    with Simulators(workers) as simulators:
        bench.compare(
            f"rollout of {len(starts)} episodes, all recorded",
            Peer("the same rollout without recording", "this project"),
            lambda: _same_results(policy, starts, simulators),
            Side(lambda: _rollout(policy, starts, simulators, record=True), items=len(starts)),
            Side(lambda: _rollout(policy, starts, simulators, record=False), items=len(starts)),
            unit="episodes/h",
            kind="overhead",
            share=2.0,
        )


def _rollout(policy: DiffusionPolicy, starts: list[EpisodeStart], simulators: Simulators, record: bool) -> Rollouts:
    return rollout(policy, starts, simulators, record=starts if record else ())


def _same_results(policy: DiffusionPolicy, starts: list[EpisodeStart], simulators: Simulators) -> Equality:
    with_states, without = (_rollout(policy, starts, simulators, record) for record in (True, False))
    if with_states.results != without.results or len(with_states.recordings) != len(starts):
        raise GateFailed(f"recording changed the episodes, or kept {len(with_states.recordings)} of {len(starts)}")
    return identical("steps and success of all episodes", *([(r.steps, r.success_any) for r in side.results] for side in (with_states, without)))


def _drawing(bench: Bench) -> None:
    width, height = bench.pick((240, 180), (240, 180), (64, 48))
    benchmark = f"draw a picture of {width} x {height}"
    try:
        back_end = find_renderer()
    except RenderingUnavailable as error:
        return bench.skip(benchmark, str(error))
    from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

    env, stock = make_env(TASK), make_stock(TASK.name)
    env.reset(seed=SEED), reset_stock(stock, SEED)
    state = env.physics_state()
    camera = {"lookat": np.array(CAMERA["at"]), **{key: CAMERA[key] for key in ("distance", "azimuth", "elevation")}}
    renderer: Any = MujocoRenderer(stock.model, stock.data, camera, width=width, height=height)

    def ours() -> np.ndarray:
        return env.draw(state, width, height)

    def theirs() -> np.ndarray:
        if renderer.viewer is not None:
            renderer.viewer.make_context_current()
        return renderer.render("rgb_array")

    with patch.dict(os.environ, MUJOCO_GL=back_end):  # gymnasium looks there for its back end
        theirs()
    bench.compare(
        benchmark,
        Peer.of("gymnasium", "gymnasium's MujocoRenderer, as RecordVideo draws"),
        lambda: _same_scene(ours(), theirs()),
        Side(ours),
        Side(theirs),
        unit="frames/s",
        kind="fewer effects",
    )
    renderer.close()
    return None


def _same_scene(ours: np.ndarray, theirs: np.ndarray) -> Equality:
    a, b = (picture.astype(np.float64) for picture in (ours, theirs))
    if a.shape != b.shape:
        raise GateFailed(f"pictures of {a.shape} and {b.shape}")
    correlation = float(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    if not correlation >= LEAST_CORRELATION:
        raise GateFailed(f"the pictures correlate by {correlation:.2f}, less than {LEAST_CORRELATION}: they do not show the same scene")
    return Equality(f"not equal by design; correlation of the pictures {correlation:.3f}, mean difference {np.abs(a - b).mean():.1f} of 255")
