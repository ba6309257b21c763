"""The demo's report: complete, self-contained, and honest about what its charts say."""

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fleet.demo import charts, markup
from fleet.demo.report import render, summary

SAMPLE = Path(__file__).parent / "samples" / "demo.json"
OUTSIDE = re.compile(r"""(?:https?:)?//|@import|url\(|<script|<link|<iframe""", re.IGNORECASE)


@pytest.fixture
def results() -> dict:
    return json.loads(SAMPLE.read_text())


class Balance(HTMLParser):
    """Counts tags and finds those that are not closed in order."""

    VOID = frozenset({"meta", "img", "source", "br", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags = 0

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags += 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.tags += 1

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def whole(results: dict, frames: Path | None = None) -> str:
    from fleet.demo.pictures import animation

    return render(results, animation(frames) if frames else None, command="flexor demo", version="0.1.0")


def draw_frames(folder: Path, count: int) -> None:
    from PIL import Image

    for i in range(count):
        Image.new("RGB", (64, 48), (10 * i, 90, 200)).save(folder / f"{i:04d}.png")


def test_the_report_refers_to_nothing_outside_itself(results, tmp_path):
    draw_frames(tmp_path, 3)
    page = whole(results, tmp_path)
    assert OUTSIDE.findall(re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page)) == []
    assert page.count("data:image/webp;base64,") == 2  # the animation, and a still for those who want no motion


@pytest.mark.parametrize(
    "planted", ["<img src='https://x.org/a.png'>", "<link rel=x>", "<script>", "url(a.woff)", "//cdn.x"]
)
def test_a_reference_to_the_outside_is_found(results, planted):
    assert OUTSIDE.search(whole(results).replace("</main>", planted + "</main>"))


def test_the_report_is_well_formed(results):
    balance = Balance()
    balance.feed(whole(results))
    assert balance.wrong == []
    assert balance.open == []
    assert balance.tags > 200


def test_the_report_shows_every_figure_a_reader_is_promised(results):
    page = whole(results)
    for promised in (
        "91.0 %",  # v1
        "83.8 to 95.2 %",
        "94.0 %",  # v2
        "scripted",
        "0.90",  # p99 of the decision
        "2.1 uJ to 14.2 mJ (modelled)",
        "+44.0",  # v1 over scripted, points
        "+38.0 to +50.0",
        "14,120",
        "r2, with SIGKILL",
        "killed, restarted",
        "unknown key",
        "2.13.0",
        "seed, train",
        "936,000",
    ):
        assert promised in page, promised
    assert '<div class="tile good"><b>0 / 0</b>' in page


def test_a_lost_step_is_not_shown_as_good(results):
    results["fleet"]["lost"] = 3
    assert '<div class="tile bad"><b>3 / 0</b>' in whole(results)


def test_a_key_that_was_let_in_is_not_shown_as_refused(results):
    results["fleet"]["refused"] = False
    assert "NOT refused" in whole(results)


def test_text_from_outside_is_escaped(results):
    results["robot"]["name"] = "<b onload=x>&"
    page = whole(results)
    assert "<b onload" not in page
    assert "&lt;b onload=x&gt;&amp;" in page


def test_the_report_does_not_change_its_figures(results):
    before = copy.deepcopy(results)
    whole(results)
    assert results == before


def test_the_summary_has_ten_lines_and_begins_with_the_path(results):
    lines = summary(results, "out/demo/report.html")
    assert len(lines) == 10
    assert lines[0].split() == ["report", "out/demo/report.html"]
    assert any("lost 0, doubled 0" in line for line in lines)


def test_frames_become_an_animation_of_all_of_them(tmp_path):
    import base64
    import io

    from PIL import Image

    from fleet.demo.pictures import animation

    draw_frames(tmp_path, 7)
    pictures = animation(tmp_path)
    assert pictures is not None
    image = Image.open(io.BytesIO(base64.b64decode(pictures.animation_uri.partition(",")[2])))
    assert (image.n_frames, image.size) == (7, (480, 360))


def test_no_frames_no_animation(tmp_path, results):
    from fleet.demo.pictures import animation

    assert animation(tmp_path) is None
    assert "The hand at work" not in whole(results)


@pytest.mark.parametrize(
    "low, high, expected",
    [(0.0, 100.0, [0, 25, 50, 75, 100]), (-0.3, 0.9, [-0.5, 0, 0.5, 1]), (2.0, 2.0, [2])],
)
def test_ticks_are_round_and_cover_the_range(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value, text", [(0.0, "0"), (-0.0, "0"), (1500.0, "1,500"), (0.25, "0.25"), (2e6, "2,000,000")]
)
def test_a_tick_is_written_without_ornament(value, text):
    assert charts.number(value) == text


def test_a_line_runs_from_the_first_point_to_the_last():
    drawing = charts.line_chart(
        [charts.Series(name="a", tone="v1", points=((0.0, 0.0), (5.0, float("nan")), (10.0, 100.0)))],
        label="x",
        x_label="s",
        y_range=(0.0, 100.0),
    )
    (points,) = re.findall(r'points="([^"]+)"', drawing)
    (x0, y0), (x1, y1) = (tuple(map(float, p.split(","))) for p in points.split())  # NaN is left out
    assert x0 < x1
    assert y0 > y1  # up on the screen is smaller
    assert (y0, y1) == (170.0, 12.0)  # the bottom and the top of the drawing


def test_a_whisker_is_as_long_as_its_interval():
    rows = [charts.Interval(name="a", tone="v1", value=50.0, low=25.0, high=75.0)]
    drawing = charts.interval_chart(rows, label="x", x_label="%", x_range=(0.0, 100.0))
    grid = [float(x) for x in re.findall(r'x1="([\d.]+)"[^>]*class="grid"', drawing)]
    (low, high) = map(float, re.findall(r'x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"[^>]*class="whisker', drawing)[0])
    assert (low, high) == (grid[1], grid[3])  # the grid's lines at 25 and 75


def test_a_chart_without_points_still_draws():
    assert "<svg" in charts.line_chart([charts.Series(name="a", tone="v1", points=())], label="x", x_label="s")


def test_a_chart_has_a_text_for_those_who_hear_it():
    assert 'aria-label="a &lt; b"' in charts.timeline([("x", 0.0, 1.0)], label="a < b")


@pytest.mark.parametrize("seconds, text", [(0.4, "0:00"), (59.6, "1:00"), (431.2, "7:11")])
def test_minutes_are_written_as_on_a_clock(seconds, text):
    assert charts.minutes(seconds) == text


def test_a_table_escapes_its_cells():
    assert "<td>&lt;x&gt;</td>" in markup.table(["a"], [["<x>"]])
