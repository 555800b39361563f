"""Small charts as SVG, in the colours of their page.

Every function returns markup that is safe in a template: labels are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 520, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 34  # margins for the labels

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Point:
    """A dot, its tooltip, and the interval of its height if it has one."""

    x: float
    y: float
    label: str
    low: float | None = None
    high: float | None = None
    mark: str = ""
    """Label beside the dot: short, since dots are close together."""


def line_chart(
    title: str, xs: Sequence[float], ys: Sequence[float], x_label: str, log: bool = False
) -> Markup:
    """One curve, on a logarithmic scale if requested; values that are not finite are gaps."""
    rows = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y) and (y > 0 or not log)]
    if not rows:
        return Markup("")
    across, x_ticks = _axis([x for x, _ in rows], LEFT, WIDTH - RIGHT)
    up, y_ticks = _axis([y for _, y in rows], HEIGHT - BOTTOM, TOP, log)
    path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in rows)
    x, y = rows[-1]
    marks = Markup('<polyline class="line" points="{}"/>').format(path)
    marks += Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(across(x), up(y))
    return _framed(title, marks, across, x_ticks, up, y_ticks, x_label)


def scatter(title: str, points: Sequence[Point], x_label: str, log: bool = False) -> Markup:
    """Dots with the intervals of their heights."""
    if not points:
        return Markup("")
    across, x_ticks = _axis([p.x for p in points], LEFT, WIDTH - RIGHT, log)
    heights = [v for p in points for v in (p.y, p.low, p.high) if v is not None]
    up, y_ticks = _axis(heights, HEIGHT - BOTTOM, TOP)
    return _framed(title, _dots(points, across, up), across, x_ticks, up, y_ticks, x_label)


def diagonal(title: str, points: Sequence[Point], x_label: str) -> Markup:
    """Shares against shares, in percent, with the diagonal of equal shares."""
    across, x_ticks = _axis([0, 100], LEFT, WIDTH - RIGHT)
    up, y_ticks = _axis([0, 100], HEIGHT - BOTTOM, TOP)
    marks = Markup(
        '<line class="grid dashed" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    ).format(across(0), up(0), across(100), up(100))
    marks += _dots(points, across, up)
    return _framed(title, marks, across, x_ticks, up, y_ticks, x_label)


def _dots(points: Sequence[Point], across: Scale, up: Scale) -> Markup:
    marks = Markup("")
    for point in points:
        x, y = across(point.x), up(point.y)
        if point.low is not None and point.high is not None:
            marks += Markup(
                '<line class="whisker" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
            ).format(x, up(point.low), up(point.high))
        marks += Markup(
            '<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>'
        ).format(x, y, point.label)
        if point.mark:
            marks += Markup('<text class="tick" x="{:.1f}" y="{:.1f}">{}</text>').format(
                x + 6, y + 4, point.mark
            )
    return marks


def whisker(rate: float, low: float, high: float, top: float) -> Markup:
    """A rate with its interval on a scale from 0 to `top`, with the width of a table cell."""
    if not all(map(math.isfinite, (rate, low, high))) or top <= 0:
        return Markup("")

    def x(value: float) -> float:
        return 4 + 152 * min(1.0, max(0.0, value / top))

    return Markup(
        '<svg class="cell" viewBox="0 0 160 14" aria-hidden="true">'
        '<line class="whisker" x1="{:.1f}" x2="{:.1f}" y1="7" y2="7"/>'
        '<circle class="dot" cx="{:.1f}" cy="7" r="3.5"/></svg>'
    ).format(x(low), x(high), x(rate))


def _axis(
    values: Sequence[float], start: float, end: float, log: bool = False
) -> tuple[Scale, list[float]]:
    """A scale that contains all values, and its ticks. A linear scale starts at zero."""
    low, high = (min(values), max(values)) if log else (min(0.0, *values), max(values))
    if log:
        bottom, top = math.log10(low) - 0.1, math.log10(high) + 0.1
        decades = range(math.floor(bottom), math.ceil(top) + 1)
        ticks = [factor * 10.0**k for k in decades for factor in (1, 2, 5)]
        if top - bottom > 2:
            ticks = ticks[::3]
        ticks = [tick for tick in ticks if bottom <= math.log10(tick) <= top]
        ticks = ticks or sorted({low, high})
        return lambda v: start + (end - start) * (math.log10(v) - bottom) / (top - bottom), ticks
    span = high - low or 1.0
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    ticks = [step * k for k in range(math.floor(low / step), math.ceil(high / step) + 1)]
    bottom, top = ticks[0], max(ticks[-1], ticks[0] + step)
    return lambda v: start + (end - start) * (v - bottom) / (top - bottom), ticks


def _framed(
    title: str,
    marks: Markup,
    across: Scale,
    x_ticks: Sequence[float],
    up: Scale,
    y_ticks: Sequence[float],
    x_label: str,
) -> Markup:
    frame = Markup("")
    for tick in y_ticks:
        frame += Markup(
            '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>'
            '<text class="tick end" x="{}" y="{:.1f}">{:.5g}</text>'
        ).format(LEFT, WIDTH - RIGHT, up(tick), up(tick), LEFT - 6, up(tick) + 4, tick)
    for tick in x_ticks:
        frame += Markup('<text class="tick middle" x="{:.1f}" y="{}">{:.5g}</text>').format(
            across(tick), HEIGHT - BOTTOM + 15, tick
        )
    frame += Markup('<text class="tick middle" x="{}" y="{}">{}</text>').format(
        (LEFT + WIDTH) / 2, HEIGHT - 4, x_label
    )
    return Markup(
        '<figure><figcaption>{}</figcaption><svg class="chart" viewBox="0 0 {} {}" role="img" '
        'aria-label="{}">{}{}</svg></figure>'
    ).format(title, WIDTH, HEIGHT, escape(title), frame, marks)
