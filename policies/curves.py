"""Learning curves as one SVG: a panel per task, a line per contender, its seeds thin behind it. Plain text, no library."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from policies.race import Result
from robot.files import replace_file

# Okabe and Ito's colours, which can be told apart by everybody.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#000000")
PANEL, LEFT, TOP, GAP, LEGEND = (300, 200), 52, 30, 56, 20


def write_svg(path: Path, results: Sequence[Result], names: Mapping[str, str]) -> None:
    """Success over minutes.

    Args:
        names: Contender -> what it is called in the legend; their order is that of the colours.
    """
    tasks = list(dict.fromkeys(result.spec.env_id for result in results))
    there = [name for name in names if any(result.spec.contender == name for result in results)]
    width = max(LEFT + len(tasks) * (PANEL[0] + GAP), 560)  # the longest name in the legend
    height = TOP + PANEL[1] + 48 + LEGEND * len(there)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, task in enumerate(tasks):
        mine = [result for result in results if result.spec.env_id == task]
        parts += _panel(LEFT + i * (PANEL[0] + GAP), task, mine, there)
    for i, name in enumerate(there):
        y = TOP + PANEL[1] + 48 + LEGEND * i
        parts.append(f'<path d="M{LEFT} {y}h24" stroke="{_colour(there, name)}" stroke-width="2.5"/>')
        parts.append(f'<text x="{LEFT + 32}" y="{y + 4}">{escape(names[name])}</text>')
    replace_file(path, "\n".join([*parts, "</svg>", ""]).encode())


def _colour(there: Sequence[str], name: str) -> str:
    return COLOURS[there.index(name) % len(COLOURS)]


def _panel(x0: float, task: str, results: Sequence[Result], there: Sequence[str]) -> list[str]:
    longest = max(result.spec.seconds for result in results)
    (w, h), y0 = PANEL, TOP

    def line(seconds: Sequence[float], success: Sequence[float]) -> str:
        points = [
            f"{x0 + w * min(t / longest, 1.0):.1f} {y0 + h * (1.0 - s):.1f}"
            for t, s in zip([0.0, *seconds], [0.0, *success])
        ]
        return "M" + "L".join(points)

    parts = [f'<text x="{x0}" y="{y0 - 10}" font-weight="bold">{escape(task)}</text>']
    for share in (0.0, 0.5, 1.0):
        y = y0 + h * (1.0 - share)
        parts.append(f'<path d="M{x0} {y}h{w}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{100 * share:.0f} %</text>')
    for share in (0.0, 0.5, 1.0):
        minutes = f"{share * longest / 60:.3g}"
        parts.append(f'<text x="{x0 + w * share}" y="{y0 + h + 16}" text-anchor="middle">{minutes}</text>')
    parts.append(f'<text x="{x0 + w / 2}" y="{y0 + h + 32}" text-anchor="middle">minutes of wall-clock time</text>')
    for name in there:
        runs = [result for result in results if result.spec.contender == name and result.curve]
        for result in runs:
            path = line([mark.seconds for mark in result.curve], [mark.success for mark in result.curve])
            parts.append(f'<path d="{path}" fill="none" stroke="{_colour(there, name)}" stroke-opacity="0.25"/>')
        if runs:
            count = min(len(result.curve) for result in runs)
            seconds = np.median([[mark.seconds for mark in result.curve[:count]] for result in runs], axis=0)
            success = np.median([[mark.success for mark in result.curve[:count]] for result in runs], axis=0)
            path = line(seconds.tolist(), success.tolist())
            parts.append(f'<path d="{path}" fill="none" stroke="{_colour(there, name)}" stroke-width="2.5"/>')
    return parts
