"""The plot: one small panel for each series, as an SVG file of a few lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from .samples import Verdict

WIDTH: Final = 900
PANEL: Final = 130
LEFT: Final = 70
TOP: Final = 26
BOTTOM: Final = 14


def svg(
    times: Sequence[float],
    columns: Mapping[str, Sequence[float]],
    verdicts: Sequence[Verdict],
    marks: Sequence[tuple[float, str]],
) -> str:
    """Draw every series over time, its fitted line, and what was done when.

    Args:
        times: seconds since the beginning, one for each sample.
        columns: what was measured, by the name of the series.
        verdicts: what is said of each, in the order of the panels.
        marks: faults: when, and what.

    """
    height = PANEL * len(verdicts) + 24
    box = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, verdict in enumerate(verdicts):
        values = [value / verdict.series.scale for value in columns[verdict.series.name]]
        parts += _panel(number * PANEL, times, values, verdict, marks)
    last = times[-1] if times else 0.0
    parts.append(f'<text x="{WIDTH - 8}" y="{height - 8}" text-anchor="end">{last:.0f} s</text>')
    return "\n".join([*parts, "</svg>\n"])


def _panel(
    top: int,
    times: Sequence[float],
    values: Sequence[float],
    verdict: Verdict,
    marks: Sequence[tuple[float, str]],
) -> list[str]:
    low, high = min(values), max(values)
    if high - low < max(1.0, abs(high) * 0.01):
        high = low + max(1.0, abs(high) * 0.01)
    span_s = max(times[-1], 1e-9)

    def x(time_s: float) -> float:
        return LEFT + time_s / span_s * (WIDTH - LEFT - 10)

    def y(value: float) -> float:
        room = PANEL - TOP - BOTTOM
        return top + TOP + (high - min(max(value, low), high)) / (high - low) * room

    line, scale = verdict.fit, verdict.series.scale
    ends = [(t, line.at(t) / scale) for t in (line.first_s, line.last_s)]
    colour = "#2a7" if verdict.holds else "#d33"
    points = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v in zip(times, values, strict=True))
    (x1, y1), (x2, y2) = ((x(t), y(v)) for t, v in ends)
    bars = [
        f'<line x1="{x(t):.1f}" y1="{top + TOP}" x2="{x(t):.1f}" y2="{top + PANEL - BOTTOM}" '
        f'stroke="#ddd"><title>{escape(what)}</title></line>'
        for t, what in marks
    ]
    return [
        *bars,
        f'<text x="8" y="{top + 16}">{escape(str(verdict))}</text>',
        f'<text x="{LEFT - 6}" y="{top + TOP + 10}" text-anchor="end">{high:,.1f}</text>',
        f'<text x="{LEFT - 6}" y="{top + PANEL - BOTTOM}" text-anchor="end">{low:,.1f}</text>',
        f'<polyline points="{points}" fill="none" stroke="#357" stroke-width="1"/>',
        f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" stroke-width="2"/>',
    ]
