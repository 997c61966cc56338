"""How a method is drawn: always in its own colour and with its own marker, whatever else is in the figure.

    replay                       blue, a disc, a solid line
    replay, batch_size=64        a darker blue, a disc, a dashed line            a variation of it
    replay, batch_size=512       a lighter blue, a disc, a dash-dotted line      another one
    somebodys-method             of the colours that no method of this package has

The colours are of Okabe & Ito (2008) and of Paul Tol's schemes: those of the methods that are mostly compared stay apart for colour-blind
readers, and markers say again what colours say. Warm red, with a diamond, is left to published values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.colors import to_hex, to_rgb

from reconverge.eval.plots import INK, MARKERS, MUTED, PAPER, line_look

METHODS: dict[str, tuple[str, str]] = {
    "finetune": (MUTED, "v"),
    "joint": ("#117733", "^"),
    "single": ("#44bb99", "p"),
    "replay": ("#0072b2", "o"),
    "ewc": ("#cc79a7", "X"),
    "l2": (INK, "*"),
    "mas": ("#f08070", "H"),
    "si": ("#d9c64a", "d"),
    "trust-region": ("#e69f00", "s"),
    "ftml": ("#882255", "P"),
    "vr-mcl": ("#332288", "<"),
    "t-dgr": ("#56b4e9", ">"),
    "adaptive": ("#999933", "h"),
    "adaptive-trust-region": ("#994f00", "8"),
}
"""Colour and marker of every method of this package."""
LEFT = ("#aa4499", "#661100", "#7d7dff", "#88ccaa")
"""Colours of methods of other packages, in the order of their names."""
SHADES = ((PAPER, 0.0), (INK, 0.5), (PAPER, 0.45))
"""What the colour of a method is mixed with, and how much of it, for itself and its variations in turn."""
LINES = ("-", "--", "-.", ":")


class Look(NamedTuple):
    """Colour, marker and line style as matplotlib names them."""

    colour: str
    marker: str
    line: str


def method_looks(methods: Mapping[str, str]) -> dict[str, Look]:
    """label -> its look, from label -> method. Of several labels of one method the one that is its name looks as the method does, else the first."""
    others = sorted({method for method in methods.values() if method not in METHODS})
    looks, seen = {}, dict.fromkeys(methods.values(), 0)
    for label in sorted(methods, key=lambda label: label != methods[label]):
        method = methods[label]
        looks[label] = _varied(*line_look(others.index(method), LEFT) if method in others else METHODS[method], seen[method])
        seen[method] += 1
    return looks


def _varied(colour: str, marker: str, variation: int) -> Look:
    """The look of variation number `variation` of a method, 0 being the method itself; once the shades are used up the markers change too."""
    rounds, shade = divmod(variation, len(SHADES))
    other, share = SHADES[shade]
    red, green, blue = ((1 - share) * own + share * added for own, added in zip(to_rgb(colour), to_rgb(other), strict=True))
    own = marker if not rounds else MARKERS[(MARKERS.find(marker) + rounds) % len(MARKERS)]
    return Look(to_hex((red, green, blue)), own, LINES[variation % len(LINES)])
