"""Small charts: lines as SVG, and sparklines for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

from aetherflow.cli.terminal import printable

__all__ = ["Chart", "Curve", "draw_charts", "sparkline"]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 720
_HEIGHT: Final = 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 34
_STYLE: Final = """
svg{font:12px system-ui,sans-serif;background:#fff}
text{fill:#333}.title{font-weight:600}.mark text{fill:#b00020}
.axis{stroke:#ccc;fill:none}.line{stroke:#2563eb;stroke-width:1.5;fill:none}.dashed{stroke-dasharray:5 4}
.dot{fill:#2563eb}.mark line{stroke:#b00020;stroke-dasharray:3 3}
@media(prefers-color-scheme:dark){svg{background:#111}text{fill:#ddd}.axis{stroke:#444}.mark text{fill:#ff8a80}}
""".replace("\n", "")


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together.

    Attributes:
        points: By x.
        dots: Whether each is shown as a dot, instead of a line through all.
        dashed: Whether the line is dashed.
    """

    points: Mapping[float, float]
    dots: bool = False
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart.

    Attributes:
        title: What it shows.
        curves: The lines and dots.
        marks: What is marked on the x axis, by x.
        x_label: What x is.
        y_unit: What stands behind the numbers of y.
    """

    title: str
    curves: Sequence[Curve]
    marks: Mapping[float, str] = field(default_factory=dict)
    x_label: str = ""
    y_unit: str = ""


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw values as one line of blocks, the mean of several where there are more than the width."""
    if not values:
        return ""
    step = max(1.0, len(values) / width)
    count = math.ceil(len(values) / step)
    groups = (
        values[int(number * step) : max(int(number * step) + 1, int((number + 1) * step))] for number in range(count)
    )
    means = [math.fsum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] for value in means)


def draw_charts(charts: Iterable[Chart]) -> str:
    """Draw charts one below the other.

    Args:
        charts: At least one; curves without points are left out.

    Returns:
        An SVG document.
    """
    drawn = [_chart(chart, number * _HEIGHT) for number, chart in enumerate(charts)]
    height = _HEIGHT * len(drawn)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
    )
    return "\n".join([head, f"<style>{_STYLE}</style>", *drawn, "</svg>", ""])


def _chart(chart: Chart, top: int) -> str:
    xs = [x for curve in chart.curves for x in curve.points] or [0.0]
    ys = [y for curve in chart.curves for y in curve.points.values()] or [0.0]
    plot = _Plot(min(xs), max(xs), 0.0, max(*ys, 1e-12) * 1.1, top)
    parts = [f'<text class="title" x="{_LEFT}" y="{top + 20}">{_text(chart.title)}</text>']
    parts.append(f'<path class="axis" d="M{_LEFT} {top + _TOP}V{top + _HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}"/>')
    for value in (0.0, plot.y_high / 2.2, plot.y_high / 1.1):
        label = f"{value:.3g}{chart.y_unit}"
        parts.append(f'<text x="{_LEFT - 6}" y="{plot.y(value) + 4:.1f}" text-anchor="end">{_text(label)}</text>')
    for value in dict.fromkeys((plot.x_low, plot.x_high)):
        anchor = "start" if value == plot.x_low else "end"
        at = f'x="{plot.x(value):.1f}" y="{top + _HEIGHT - 18}" text-anchor="{anchor}"'
        parts.append(f"<text {at}>{value:g}</text>")
    middle = f'x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{top + _HEIGHT - 18}" text-anchor="middle"'
    parts.append(f"<text {middle}>{_text(chart.x_label)}</text>")
    parts += [_curve(curve, plot) for curve in chart.curves if curve.points]
    parts += [_mark(x, label, plot, top) for x, label in chart.marks.items()]
    return "\n".join(parts)


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where values are on the page."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    top: int

    def x(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        return _LEFT + (value - self.x_low) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        span = (self.y_high - self.y_low) or 1.0
        return self.top + _HEIGHT - _BOTTOM - (value - self.y_low) / span * (_HEIGHT - _TOP - _BOTTOM)


def _curve(curve: Curve, plot: _Plot) -> str:
    points = [(plot.x(x), plot.y(y)) for x, y in curve.points.items()]
    if curve.dots:
        return "".join(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points)
    kind = "line dashed" if curve.dashed else "line"
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def _mark(x: float, label: str, plot: _Plot, top: int) -> str:
    at = plot.x(x)
    anchor = "end" if at > _WIDTH / 2 else "start"
    nudge = -4 if anchor == "end" else 4
    return (
        f'<g class="mark"><line x1="{at:.1f}" y1="{top + _TOP}" x2="{at:.1f}" y2="{top + _HEIGHT - _BOTTOM}"/>'
        f'<text x="{at + nudge:.1f}" y="{top + _TOP + 10}" text-anchor="{anchor}">{_text(label)}</text></g>'
    )


def _text(text: str) -> str:
    return escape(printable(text))
