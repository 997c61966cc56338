"""Pictures of a MuJoCo scene without a screen.

Off-screen OpenGL needs system packages that PyPI does not have, and a broken driver can end the process.
So the back ends are tried in a child process first; stepping a simulator never touches OpenGL.

    MUJOCO_GL=egl|osmesa|glfw     chooses the back end; unset: the first of egl and osmesa that works
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from reconverge.envs.errors import RenderingUnavailable

BACK_ENDS = ("egl", "osmesa")
PROBE_TIMEOUT_S = 60.0
MARK_RADIUS_M, MARK_COLOUR = 0.02, np.array([0.1, 0.9, 0.2, 0.8], np.float32)
INSTALL = "apt-get install -y libegl1 libgl1-mesa-dri"

_PROBE_SCENE = """
<mujoco><worldbody>
  <light pos="0 0 3"/><geom type="sphere" size="1" rgba="1 0 0 1"/>
</worldbody></mujoco>
"""


@lru_cache(maxsize=1)
def find_renderer() -> str:
    """The OpenGL back end that draws on this machine, found in a child process.

    Raises RenderingUnavailable with the line that installs one.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    candidates = (chosen,) if chosen else BACK_ENDS
    for back_end in candidates:
        if _draws(back_end):
            return back_end
    tried = f"MUJOCO_GL={chosen} draws nothing" if chosen else "neither EGL nor OSMesa draws anything"
    raise RenderingUnavailable(f"no off-screen OpenGL: {tried} here; install one with: {INSTALL}")


class Painter:
    """Draws scenes of one model at one size: a free camera, without shadows, reflections and multi-sampling.

    Software OpenGL draws a 320x240 picture about six times faster so.
    """

    def __init__(self, model: Any, width: int, height: int, back_end: str = "") -> None:
        import mujoco

        self._mujoco, self._model, self.size = mujoco, model, (width, height)
        self._gl = _gl_context(back_end or find_renderer())
        self._gl.make_current()
        model.vis.quality.shadowsize, model.vis.quality.offsamples = 0, 0
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        self._scene = mujoco.MjvScene(model, maxgeom=2000)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._scene.flags[flag] = 0
        self._camera, self._options = mujoco.MjvCamera(), mujoco.MjvOption()
        self._options.sitegroup[:] = 0  # sites mark places for code, not for the eye; goals are marked below
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)

    def look(self, at: tuple[float, float, float], distance: float, azimuth: float, elevation: float) -> None:
        """Place the camera: metres and degrees; azimuth 90 looks along +y."""
        self._camera.lookat[:] = at
        self._camera.distance, self._camera.azimuth, self._camera.elevation = distance, azimuth, elevation

    def draw(self, data: Any, marks: Sequence[np.ndarray] = ()) -> np.ndarray:
        """The scene of `data` with a green ball at each position in `marks`, uint8 (height, width, 3), upright."""
        mujoco, (width, height) = self._mujoco, self.size
        self._gl.make_current()
        mujoco.mjv_updateScene(self._model, data, self._options, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)
        for position in marks:
            self._mark(position)
        view, picture = mujoco.MjrRect(0, 0, width, height), np.empty((height, width, 3), np.uint8)
        mujoco.mjr_render(view, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, view, self._context)
        return np.ascontiguousarray(picture[::-1])  # OpenGL's rows start at the bottom

    def _mark(self, position: np.ndarray) -> None:
        if self._scene.ngeom < self._scene.maxgeom:
            ball = self._scene.geoms[self._scene.ngeom]
            self._mujoco.mjv_initGeom(ball, self._mujoco.mjtGeom.mjGEOM_SPHERE, np.full(3, MARK_RADIUS_M), position, np.eye(3).ravel(), MARK_COLOUR)
            self._scene.ngeom += 1

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()


@lru_cache(maxsize=1)
def _gl_context(back_end: str) -> Any:
    """One context for the process: models have their own textures, the frame buffer is each painter's."""
    import importlib

    context = importlib.import_module(f"mujoco.{back_end}").GLContext(64, 64)
    atexit.register(context.free)  # freed by the garbage collector it would print errors at exit
    return context


def _draws(back_end: str) -> bool:
    command = [sys.executable, "-c", f"from reconverge.envs.rendering import draw_probe; draw_probe({back_end!r})"]
    environment = {**os.environ, "MUJOCO_GL": "disable"}
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def draw_probe(back_end: str) -> None:
    """Draw a red ball and fail unless it is red."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(_PROBE_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    painter = Painter(model, 32, 32, back_end)
    painter.look((0, 0, 0), 4.0, 90.0, -30.0)
    red, green, _ = painter.draw(data)[16, 16]
    painter.close()
    assert red > 2 * green, f"the middle of the picture is {red}, {green}"
