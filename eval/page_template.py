"""The Jinja templates of pages, and the figures that stand in them as SVG."""

from __future__ import annotations

from importlib.resources import files

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from reconverge.envs.gym_name import short_name
from reconverge.eval import plots, wording
from reconverge.eval.wording import bounds, duration, flops, percent, points, size


def page_template(name: str = "report_template.html") -> jinja2.Template:
    """A template of this package, with what figures and rates are worded by."""
    loader = jinja2.FunctionLoader(lambda name: (files("reconverge.eval") / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters.update(percent=percent, points=points, size=size, duration=duration, short=short_name, flops=flops)
    environment.filters.update(updates=wording.updates, median=wording.median, median_bounds=wording.median_bounds, signed=wording.signed)
    environment.filters.update(median_of_all=wording.median_of_all, bounds_of_all=wording.bounds_of_all, left_out=wording.left_out)
    environment.filters["interval"] = bounds
    environment.filters["points_interval"] = lambda interval: bounds(interval, points)
    return environment.get_template(name)


def inline(figure: Figure) -> Markup:
    """A figure as SVG, which a template does not escape."""
    return Markup(plots.svg(figure))
