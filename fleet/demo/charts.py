"""Charts as inline SVG: lines, intervals and a timeline. No scripts, no fonts, no network; colours come from the page's CSS.

Sizes are in the chart's own units: 460 wide, so that 12-unit text stays readable on a phone 360 pixels wide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH = 460.0
CHARACTER = 6.6  # width of one character of 12-unit text, for margins


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: points of (x, y); `tone` is a CSS class of the page."""

    name: str
    tone: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One row: a value and the interval around it."""

    name: str
    tone: str
    value: float
    low: float
    high: float


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that cover low..high, about `count` of them: steps of 1, 2, 2.5 or 5 times a power of ten."""
    span = high - low
    if not (isfinite(span) and span > 0.0):
        return [low]
    raw = span / max(1, count - 1)
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1.0 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A tick's text: no trailing zeros, thousands apart."""
    text = f"{value:,.6f}".rstrip("0").rstrip(".") if abs(value) < 1e6 else f"{value:,.0f}"
    return "0" if text in ("", "-0") else text


def _svg(height: float, label: str, body: Sequence[str]) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(label)}">'
        + "".join(body)
        + "</svg>"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def line_chart(
    series: Sequence[Series],
    *,
    label: str,
    x_label: str,
    y_range: tuple[float, float] | None = None,
    y_text: Callable[[float], str] = number,
    height: float = 210.0,
) -> str:
    """Lines over a common x axis, each named at its end.

    Args:
        series: At least one; points that are not finite are left out.
        label: What the chart shows, for those who hear it.
        x_label: Text under the x axis.
        y_range: Least and most of the y axis; from the data when None.
        y_text: How a y tick is written.
        height: Height of the drawing.
    """
    kept = [[(x, y) for x, y in s.points if isfinite(x) and isfinite(y)] for s in series]
    xs, ys = [x for p in kept for x, _ in p] or [0.0], [y for p in kept for _, y in p] or [0.0]
    x_first = min(0.0, *xs)
    y_ticks = ticks(*(y_range or (min(0.0, *ys), max(ys) or 1.0)), count=5)
    x_ticks = [t for t in ticks(x_first, max(xs), count=6) if t <= max(xs) * (1 + 1e-9)] or [x_first]
    left = 14.0 + CHARACTER * max(len(y_text(t)) for t in y_ticks)
    right = WIDTH - 14.0 - (CHARACTER * max(len(s.name) for s in series) if len(series) > 1 else 0.0)
    top, bottom = 12.0, height - 40.0
    x_span, y_span = (max(xs) - x_first) or 1.0, (y_ticks[-1] - y_ticks[0]) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - x_first) / x_span * (right - left), bottom - (y - y_ticks[0]) / y_span * (bottom - top)

    body = []
    for t in y_ticks:
        _, y = at(x_first, t)
        body += [_line(left, y, right, y, "grid"), _text(left - 7.0, y + 4.0, y_text(t), anchor="end")]
    for t in x_ticks:
        x, _ = at(t, 0.0)
        body += [_line(x, bottom, x, bottom + 4.0, "axis"), _text(x, bottom + 18.0, number(t), anchor="middle")]
    body += [
        _line(left, bottom, right, bottom, "axis"),
        _text((left + right) / 2, height - 4.0, x_label, anchor="middle"),
    ]
    for s, points in zip(series, kept):
        if not points:
            continue
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*p) for p in points))
        x, y = at(*points[-1])
        body.append(f'<polyline points="{path}" class="line {s.tone}"/>')
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="dot {s.tone}"/>')
        if len(series) > 1:
            body.append(_text(x + 7.0, y + 4.0, s.name, kind=f"name {s.tone}"))
    return _svg(height, label, body)


def interval_chart(
    rows: Sequence[Interval],
    *,
    label: str,
    x_label: str,
    x_range: tuple[float, float] | None = None,
    text: Callable[[float], str] = number,
) -> str:
    """One row per value with its interval as a whisker; the value stands at the right.

    Args:
        rows: At least one.
        label: What the chart shows, for those who hear it.
        x_label: Text under the x axis.
        x_range: Least and most of the x axis; from zero to the largest bound when None.
        text: How values and ticks are written.
    """
    row_height, top = 30.0, 8.0
    height = top + row_height * len(rows) + 40.0
    bottom = top + row_height * len(rows)
    x_ticks = ticks(*(x_range or (min(0.0, *(r.low for r in rows)), max(r.high for r in rows) or 1.0)), count=5)
    left = 14.0 + CHARACTER * max(len(r.name) for r in rows)
    right = WIDTH - 16.0 - CHARACTER * max(len(text(r.value)) for r in rows)
    span = (x_ticks[-1] - x_ticks[0]) or 1.0

    def at(value: float) -> float:
        return left + (min(max(value, x_ticks[0]), x_ticks[-1]) - x_ticks[0]) / span * (right - left)

    body = []
    for t in x_ticks:
        body += [_line(at(t), top, at(t), bottom, "grid"), _text(at(t), bottom + 17.0, text(t), anchor="middle")]
    body.append(_text((left + right) / 2, height - 4.0, x_label, anchor="middle"))
    for i, row in enumerate(rows):
        y = top + row_height * (i + 0.5)
        body += [
            _text(left - 10.0, y + 4.0, row.name, anchor="end", kind="strong"),
            f'<rect x="{min(at(0.0), at(row.value)):.1f}" y="{y - 6:.1f}" width="{abs(at(row.value) - at(0.0)):.1f}" '
            f'height="12" rx="2" class="bar {row.tone}"/>',
            _line(at(row.low), y, at(row.high), y, f"whisker {row.tone}"),
            f'<circle cx="{at(row.value):.1f}" cy="{y:.1f}" r="4.5" class="dot {row.tone}">'
            f"<title>{escape(row.name)}: {text(row.value)} ({text(row.low)} to {text(row.high)})</title></circle>",
            _text(WIDTH - 4.0, y + 4.0, text(row.value), anchor="end", kind="strong"),
        ]
    return _svg(height, label, body)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One row of a latency chart: median, 99th percentile and, where it was kept, the largest [ms]."""

    name: str
    p50_ms: float
    p99_ms: float
    most_ms: float | None


def latency_chart(rows: Sequence[Spread], *, limit_ms: float, label: str, x_label: str) -> str:
    """Where times lie on a logarithmic axis: a bar from the median to the 99th percentile, a whisker to the largest, a line at the limit.

    Args:
        rows: At least one; a median of 0 is drawn at the left edge.
        limit_ms: What all of them must stay below [ms].
        label: What the chart shows, for those who hear it.
        x_label: Text under the x axis.
    """
    row_height, top = 30.0, 22.0
    bottom = top + row_height * len(rows)
    height = bottom + 40.0
    seen = [ms for row in rows for ms in (row.p50_ms, row.p99_ms, row.most_ms) if ms]
    first = floor(log10(min([*seen, limit_ms])))
    last = ceil(log10(max([*seen, limit_ms * 1.5])))
    left, right = 14.0 + CHARACTER * max(len(row.name) for row in rows), WIDTH - 16.0

    def at(ms: float) -> float:
        return left + (log10(max(ms, 10.0**first)) - first) / (last - first) * (right - left)

    body = []
    for power in range(first, last + 1):
        x = at(10.0**power)
        body += [_line(x, top, x, bottom, "grid"), _text(x, bottom + 17.0, number(10.0**power), anchor="middle")]
    body += [
        _line(at(limit_ms), top - 6.0, at(limit_ms), bottom, "limit"),
        _text(at(limit_ms), top - 10.0, f"{number(limit_ms)} ms", anchor="middle", kind="limit"),
        _text((left + right) / 2, height - 4.0, x_label, anchor="middle"),
    ]
    for i, row in enumerate(rows):
        y = top + row_height * (i + 0.5)
        start, end = at(row.p50_ms), at(row.p99_ms)
        body += [
            _text(left - 10.0, y + 4.0, row.name, anchor="end", kind="strong"),
            _line(end, y, at(row.p99_ms if row.most_ms is None else row.most_ms), y, "whisker v1"),
            f'<rect x="{start:.1f}" y="{y - 6:.1f}" width="{max(3.0, end - start):.1f}" height="12" rx="2" class="bar solid v1">'
            f"<title>{escape(row.name)}: median {row.p50_ms:.3g} ms, 99 % {row.p99_ms:.3g} ms</title></rect>",
        ]
    return _svg(height, label, body)


def timeline(spans: Sequence[tuple[str, float, float]], *, label: str) -> str:
    """Where the time went: one row per (name, start [s], length [s])."""
    row_height, top = 22.0, 4.0
    height = top + row_height * len(spans) + 6.0
    left = 14.0 + CHARACTER * max(len(name) for name, _, _ in spans)
    right = WIDTH - 16.0 - CHARACTER * len("0:00")
    total_s = max(start + length for _, start, length in spans) or 1.0
    body = []
    for i, (name, start, length) in enumerate(spans):
        y = top + row_height * (i + 0.5)
        x = left + start / total_s * (right - left)
        body += [
            _line(left, y, right, y, "grid"),
            _text(left - 10.0, y + 4.0, name, anchor="end"),
            f'<rect x="{x:.1f}" y="{y - 6:.1f}" width="{max(2.0, length / total_s * (right - left)):.1f}" '
            'height="12" rx="2" class="bar solid v1"/>',
            _text(WIDTH - 4.0, y + 4.0, minutes(length), anchor="end"),
        ]
    return _svg(height, label, body)


def minutes(seconds: float) -> str:
    """Seconds as m:ss."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
