"""How numbers are written for readers: rates in percent, differences in points, bytes and durations in units of their size."""

from __future__ import annotations

import math
from collections.abc import Callable

from reconverge.eval.intervals import Interval
from reconverge.eval.survival import MedianUpdates


def percent(rate: float | None) -> str:
    """A rate in [0, 1] as percent with one decimal; a dash when it was not measured."""
    return "–" if rate is None or math.isnan(rate) else f"{in_percent(rate)}\N{NARROW NO-BREAK SPACE}%"


def in_percent(rate: float) -> str:
    """The same without its unit, for columns that say it."""
    return f"{100 * rate:.1f}"


def points(difference: float | None) -> str:
    """A difference of rates as signed percentage points, without a unit."""
    if difference is None or math.isnan(difference):
        return "–"
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def size(count: int) -> str:
    """Bytes in decimal units."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def flops(count: float | None) -> str:
    """Floating-point operations in decimal units; a dash when they were not counted."""
    if count is None or math.isnan(count):
        return "–"
    value, units = float(count), ["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def bounds(interval: Interval, wording: Callable[[float | None], str] = percent) -> str:
    """Both bounds of an interval in words; empty when it has none."""
    if math.isnan(interval.low):
        return ""
    low, high = possible(interval, signed=wording is not percent)
    return f"{wording(low)} to {wording(high)}"


def with_bounds(interval: Interval, wording: Callable[[float], str], signed: bool = False, absent: str = "–") -> str:
    """Such as `92.1 (90.6 to 93.6)`: a rate, or a signed difference of rates, and its bounds as far as it has any."""
    if math.isnan(interval.mean):
        return absent
    if math.isnan(interval.low) or math.isnan(interval.high):
        return wording(interval.mean)
    low, high = possible(interval, signed)
    return f"{wording(interval.mean)} ({wording(low)} to {wording(high)})"


def possible(interval: Interval, signed: bool) -> tuple[float, float]:
    """Both bounds, cut to what a rate can be, or a signed difference of rates."""
    return max(-1.0 if signed else 0.0, interval.low), min(1.0, interval.high)


def updates(count: float | None) -> str:
    """A number of updates, None = never."""
    return "never" if count is None else f"{count:,.0f}"


def median(found: MedianUpdates) -> str:
    """A median of updates; where more than half never recovered, for how long one looked; a dash without any entry."""
    if not found.size:
        return "–"
    return f"never within {found.last:,}" if found.median is None else updates(found.median)


def median_of_all(found: MedianUpdates, dipped: int) -> str:
    """A median over pairs of which `dipped` had a dip: where at most half had, the pair in the middle waited for nothing."""
    return median(found) if not found.size or 2 * dipped > found.size else "no dip"


def bounds_of_all(found: MedianUpdates, dipped: int) -> str:
    """The interval of that median; none that says no more than the first point of the grid."""
    return "" if median_of_all(found, dipped) == "no dip" and found.high == found.median else median_bounds(found)


def median_bounds(found: MedianUpdates) -> str:
    """The interval of a median of updates; open below where there are too few, above where even its upper bound was not reached, empty where both."""
    if found.low is None:
        return "" if found.high is None else f"to {found.high:,.0f}"
    return f"from {found.low:,.0f}" if found.high is None else f"{found.low:,.0f} to {found.high:,.0f}"


def left_out(unlearned: int, unmeasured: int, noun: str = "pairs ") -> str:
    """Pairs that a table of recovery leaves out, such as `3 pairs never learned, 2 pairs not measured`; empty without any."""
    counts = ((unlearned, "never learned"), (unmeasured, "not measured"))
    return ", ".join(f"{count:,} {noun}{why}" for count, why in counts if count)


def signed(count: int) -> str:
    """A whole number with its sign."""
    return f"{count:+d}".replace("-", "−") if count else "0"
