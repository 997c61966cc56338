"""The closed form of SciPy's quaternion gives SciPy's bits."""

import itertools

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from reconverge.envs.metaworld_quaternion import scipy_quaternion


def test_the_numbers_of_the_docstring() -> None:
    half = 2 / np.sqrt(8)
    assert scipy_quaternion(np.eye(3).ravel().tolist()) == (0, 0, 0, 1)
    assert scipy_quaternion([0, -1, 0, 1, 0, 0, 0, 0, 1]) == (0, 0, half, half)


def test_scipys_bits_on_quarter_turns_where_branches_tie() -> None:
    turns = [np.eye(3)[list(order)] * signs for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)]
    rotations = [turn for turn in turns if np.linalg.det(turn) > 0]
    assert len(rotations) == 24
    for matrix in rotations:
        assert_scipys(matrix)


def test_scipys_bits_on_mujocos_matrices() -> None:
    random, matrix = np.random.default_rng(0), np.empty(9)
    for _ in range(4000):
        # High powers bring quaternions close to the axes, where branches change.
        quaternion = random.normal(size=4) * random.random(4) ** random.integers(0, 6)
        mujoco.mju_quat2Mat(matrix, quaternion / np.linalg.norm(quaternion))
        assert_scipys(matrix.reshape(3, 3))


def assert_scipys(matrix: np.ndarray) -> None:
    expected = Rotation.from_matrix(matrix).as_quat()
    assert np.array(scipy_quaternion(matrix.ravel().tolist())).tobytes() == expected.tobytes(), matrix
