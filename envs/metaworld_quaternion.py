"""A rotation matrix as a quaternion, to the last bit as SciPy gives it.

Meta-World shows most objects' rotation as `Rotation.from_matrix(matrix).as_quat()`: x, y, z, w. SciPy takes 10 to 25
microseconds to do these twenty operations.

    matrix            largest of xx, yy, zz, trace    before normalising           quaternion
    1  0  0           trace = 3                       (0, 0, 0, 1 + 3)             (0, 0, 0, 1)
    0  1  0
    0  0  1
    0 -1  0           zz = 1; the trace is 1 too,     (0, 0, 1 - 1 + 2, 1 - -1)    (0, 0, 0.7071, 0.7071)
    1  0  0           the first of equals is taken
    0  0  1

Why it is exact: Python's floats are the C doubles that SciPy computes with; the branch (the first of equals, in the
order above), the order of every sum and the division by the norm are SciPy's (`_rotation_xp._from_matrix_orthogonal`
spells them out). SciPy also re-orthogonalises a matrix that is off by more than 1e-12; MuJoCo's come from unit
quaternions and are off by about 1e-16. Shown on x86-64 (tests/test_metaworld_quaternion.py); where a compiler fuses
SciPy's products and sums, that test would fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt


def scipy_quaternion(matrix: Sequence[float]) -> tuple[float, float, float, float]:
    """x, y, z, w of a rotation matrix, nine floats row by row."""
    xx, xy, xz, yx, yy, yz, zx, zy, zz = matrix
    trace = xx + yy + zz
    if trace > xx and trace > yy and trace > zz:
        x, y, z, w = zy - yz, xz - zx, yx - xy, 1 + trace
    elif zz > xx and zz > yy:
        x, y, z, w = zx + xz, zy + yz, 1 - trace + 2 * zz, yx - xy
    elif yy > xx:
        x, y, z, w = yx + xy, 1 - trace + 2 * yy, zy + yz, xz - zx
    else:
        x, y, z, w = 1 - trace + 2 * xx, yx + xy, zx + xz, zy - yz
    norm = sqrt(x * x + y * y + z * z + w * w)
    return x / norm, y / norm, z / norm, w / norm
