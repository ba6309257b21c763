"""The score as one page that needs nothing else: a table, and a picture of every grasp and thumb position."""

from html import escape
from pathlib import Path

from robot.description import load
from sim.dexterity.kapandji import NAMES
from sim.dexterity.pictures import Album, as_data_uri
from sim.dexterity.score import Score
from sim.objects import find

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1240px;padding:0 1rem;color:#1d2733;background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
.big{display:flex;gap:2.5rem;margin:1rem 0}.big div{font-size:.85rem;color:#5a6878}.big b{display:block;font-size:2.1rem;color:#1d2733}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(224px,1fr));gap:14px}
figure{margin:0;border:1px solid #dbe2ea;border-radius:8px;overflow:hidden}figure img{width:100%;display:block}
figcaption{padding:7px 10px 9px;font-size:.82rem}figcaption b{font-size:.92rem}figcaption span{color:#5a6878}
.no{border-color:#d98a7e;background:#fdf5f3}.no b::after{content:" not held";color:#b3402d;font-weight:400}.no.thumb b::after{content:" not reached"}
.blank{height:120px;display:grid;place-items:center;color:#8794a3}
"""


def write_page(path: Path, result: Score) -> None:
    """Write the page; pictures show the end of the hold."""
    model = load(result.hand)
    album = Album(model)
    try:
        grasps = [_grasp(one, album) for one in result.types]
        thumbs = [_thumb(visit, album) for visit in result.positions]
    finally:
        album.close()
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Dexterity of {escape(result.hand)}</title><style>{STYLE}</style></head><body>
<h1>Dexterity of {escape(result.hand)} in {escape(result.engine)}</h1>
<div class="big"><div><b>{result.held} / {len(result.types)}</b>grasp types held</div>
<div><b>{result.kapandji} / {len(result.positions)}</b>thumb positions in order (Kapandji)</div></div>
<p>A grasp counts when the parts that its type names touch as named, it is held still for 5 s, and a pull of the object's own weight along six
directions does not take it, with the parts still in place afterwards. "Least pull" is the weakest of the six directions, in multiples of the
object's weight. Motors, tendons and friction are simulated; nothing is pinned.</p>
<h2>Grasp types</h2><div class="grid">{"".join(grasps)}</div>
<h2>Thumb positions</h2><div class="grid">{"".join(thumbs)}</div>
</body></html>
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _grasp(one, album: Album) -> str:
    row, outcome, about = one.as_json(), one.outcome, find(one.kind.thing).about
    if outcome is not None and one.counts:
        image = f'<img alt="{escape(one.kind.name)}" src="{as_data_uri(album.picture(outcome.q_rad, find(one.kind.thing).body, outcome.pose))}">'
        least = row["least_pull_n"]
        pull = (
            ""
            if least is None
            else f"<br><span>least pull {least / one.weight_n:.1f} weights, {row['power_w']:.2f} W</span>"
        )
        figures = f"{escape(about)}, {1e3 * find(one.kind.thing).body.mass_kg:.0f} g{pull}"
    else:
        image, figures = (
            '<div class="blank">no picture</div>',
            f"{escape(about)}<br><span>{escape(row['why_not'])}</span>",
        )
    return (
        f'<figure class="{"yes" if one.counts else "no"}">{image}<figcaption><b>{one.kind.number} {escape(one.kind.name)}</b>'
        f"<br>{figures}</figcaption></figure>"
    )


def _thumb(visit, album: Album) -> str:
    image = f'<img alt="position {visit.position}" src="{as_data_uri(album.picture(visit.q_rad))}">'
    why = f"<br><span>{escape(visit.reach.why())}</span>" if not visit.ok else ""
    return (
        f'<figure class="thumb {"yes" if visit.ok else "no"}">{image}<figcaption><b>{visit.position}</b> {escape(NAMES[visit.position - 1])}'
        f"<br><span>{1e3 * visit.reach.gap_m:.1f} mm</span>{why}</figcaption></figure>"
    )
