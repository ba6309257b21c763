"""The few pieces of HTML the report is made of. Text is escaped here and nowhere else."""

from collections.abc import Mapping, Sequence
from html import escape


def tile(value: str, what: str, tone: str = "") -> str:
    """A large figure with what it is."""
    return f'<div class="tile {tone}"><b>{escape(value)}</b><span>{escape(what)}</span></div>'


def section(title: str, *parts: str) -> str:
    """A card with a heading; `parts` are HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>'


def figure(drawing: str, title: str, caption: str = "") -> str:
    """A drawing (HTML) under its title."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(title)}</h3>{drawing}{below}</figure>"


def pair(*figures: str) -> str:
    """Figures side by side where there is room."""
    return f'<div class="pair">{"".join(figures)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, total: bool = False, texts: Sequence[int] = ()) -> str:
    """A table that scrolls on a narrow screen.

    Args:
        head: Column names.
        rows: Cells as text.
        total: Whether the last row is a sum.
        texts: Columns aligned left, besides the first.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=text' if i in texts else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row)
        )

    body = [
        f"<tr{' class=total' if total and i == len(rows) - 1 else ''}>{cells('td', row)}</tr>"
        for i, row in enumerate(rows)
    ]
    return f'<div class="scroll"><table><tr>{cells("th", head)}</tr>{"".join(body)}</table></div>'


def pairs(items: Mapping[str, str]) -> str:
    """Names and values, one per line."""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items.items()) + "</dl>"


def page(title: str, css: str, body: str) -> str:
    """A whole document that refers to nothing outside itself."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css}</style></head><body><main>{body}</main></body></html>\n"
    )
