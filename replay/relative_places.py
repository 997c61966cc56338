"""Where things are, seen from the first object: fine where they touch, coarse where they are far apart.

A generator errs by a share of a number's spread, and positions spread over half a metre: a centimetre, which is nothing across the table and
everything between a hand and the object that it grips. So of the positions in a window's code all but the object's own are written as

    asinh((p - object) / s)        nearly (p - object) / s within s metres, then logarithmic

and an error of 0.1 is s / 10 where things touch, and a tenth of the distance far away. It is undone exactly.

Worked example, s = 5 cm: hand at 0.60 m, object at 0.57, goal at 0.80 become 0.569, 0.57 and 2.231.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from reconverge.policy.relative_positions import POSITION_SIZE


def to_relative(code: Tensor, places: Sequence[int], scale_m: float) -> Tensor:
    """Code (B, size) with the positions that begin at `places` (hand, first object, others) seen from the first object; two places at least."""
    return _rewritten(code, places, lambda position, seen_from: torch.asinh((position - seen_from) / scale_m))


def to_absolute(code: Tensor, places: Sequence[int], scale_m: float) -> Tensor:
    """The code of which `to_relative` gives this one."""
    return _rewritten(code, places, lambda position, seen_from: scale_m * torch.sinh(position) + seen_from)


def _rewritten(code: Tensor, places: Sequence[int], rewrite: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each position but the second one, by what it is and where the second one is."""
    hand, first_object, *others = places
    rewritten = code.clone()
    for place in (hand, *others):
        rewritten[:, _at(place)] = rewrite(code[:, _at(place)], code[:, _at(first_object)])
    return rewritten


def _at(place: int) -> slice:
    return slice(place, place + POSITION_SIZE)
