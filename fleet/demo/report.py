"""The report: one HTML file that needs nothing but itself, and the ten lines the terminal shows. Both read only `results`."""

from collections.abc import Mapping, Sequence
from typing import Any

from fleet.demo import charts, markup
from fleet.demo.pictures import Pictures
from fleet.demo.style import CSS
from robot.energy import joules

Results = Mapping[str, Any]

ENGINE_TEXT = {"pybullet": "PyBullet", "mujoco": "MuJoCo"}
BASELINE_TEXT = {
    "zero": "zero: never moves",
    "random": "random actions",
    "scripted": "scripted: sees what the policy sees",
    "planner": "planner: knows the exact skeleton",
}


def percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"


def count(value: float) -> str:
    return f"{value:,.0f}"


def energy(one: Mapping[str, Any]) -> str:
    """Joules with the tag that says whether a sensor or a model is behind them."""
    if one["measured"]:
        return f"{joules(one['low_j'])} (measured)"
    return f"{joules(one['low_j'])} to {joules(one['high_j'])} (modelled)"


def engine(results: Results, what: str) -> str:
    """The engine used to "train" or to "test", as its makers write it."""
    name = str(results["engines"][what])
    return ENGINE_TEXT.get(name, name)


def scores(results: Results) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Everything that was evaluated on the same seeds, in the order it is shown: name -> (tone, figures)."""
    shown = {name: ("base", one) for name, one in results["eval"]["baselines"].items()}
    return shown | {version: (version, results["eval"][version]) for version in ("v1", "v2")}


def render(results: Results, pictures: Pictures | None, *, command: str, version: str) -> str:
    """The whole report.

    Args:
        results: The figures, as `--json` writes them.
        pictures: Of the hand at work.
        command: What to type to make this again.
        version: Flexor's version.
    """
    return markup.page(
        "Flexor demo",
        CSS,
        "".join(
            (
                _head(results),
                _work(results, pictures),
                _learning(results),
                _comparison(results),
                _onboard(results),
                _fleet(results),
                _making(results),
                f"<footer>Flexor {version}. Made by <code>{command}</code>; the same figures as data are in its JSON.</footer>",
            )
        ),
    )


def _head(results: Results) -> str:
    robot, fleet, v1, v2 = results["robot"], results["fleet"], results["eval"]["v1"], results["eval"]["v2"]
    whole = fleet["lost"] == 0 and fleet["doubled"] == 0
    tiles = (
        markup.tile(percent(v1["success"]), "success of v1, trained alone"),
        markup.tile(percent(v2["success"]), "success of v2, trained on the fleet's experience"),
        markup.tile(f"{v2['tip_error_mm']:.1f} mm", "mean fingertip error of v2"),
        markup.tile(f"{results['onboard']['times_ms']['decision']['p99']:.1f} ms", "onboard decision, 99th percentile"),
        markup.tile(count(fleet["held"]), "steps of experience on the hub"),
        markup.tile(f"{fleet['lost']} / {fleet['doubled']}", "steps lost / doubled", "good" if whole else "bad"),
    )
    return (
        "<header><h1>From one simulated hand to a learning fleet</h1>"
        + markup.paragraph(
            f"{robot['name']}: {robot['joints']} joints pulled by {robot['motors']} forearm motors. Trained, exported, run "
            f"onboard and shared between {len(fleet['robots'])} robots in {charts.minutes(results['seconds'])} minutes."
        )
        + f'</header><div class="tiles">{"".join(tiles)}</div>'
    )


def _work(results: Results, pictures: Pictures | None) -> str:
    if pictures is None:
        return ""
    image = (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{pictures.still_uri}">'
        f'<img src="{pictures.animation_uri}" width="{pictures.width_px}" height="{pictures.height_px}" '
        'alt="The simulated hand moving its five fingertips to their goals"></picture>'
    )
    robot = results["robot"]
    facts = markup.pairs(
        {
            "robot": robot["name"],
            "joints": f"{robot['hand_joints']} in the hand, {robot['forearm_joints']} in forearm and wrist",
            "motors": f"{robot['motors']}, all in the forearm",
            "mass": f"{robot['mass_kg']:.2f} kg",
            "fingertips": ", ".join(robot["tips"]),
            "control rate": f"{results['onboard']['control_hz']:g} Hz",
            "description": f"sha256 {robot['sha256'][:16]}…",
        }
    )
    return markup.section(
        "The hand at work",
        markup.paragraph(
            f"Policy v1 brings five fingertips to five goals, in {engine(results, 'test')}, through the tendons.",
            "note",
        ),
        markup.pair(f"<figure>{image}</figure>", f"<div>{facts}</div>"),
    )


def _learning(results: Results) -> str:
    train, curve = results["train"], results["train"]["curve"]

    def line(key: str, scale: float = 1.0) -> tuple[charts.Series, ...]:
        return (
            charts.Series(name=key, tone="v1", points=tuple((p["time_s"], scale * p[key]) for p in curve if key in p)),
        )

    success = charts.line_chart(
        line("success", 100.0),
        label="Success while training, in percent, over seconds",
        x_label="training time, s",
        y_range=(0.0, 100.0),
        y_text=lambda y: f"{y:.0f} %",
    )
    error = charts.line_chart(
        line("tip_error_mm"),
        label="Mean fingertip error while training, in millimetres, over seconds",
        x_label="training time, s",
    )
    return markup.section(
        "Learning from scratch",
        markup.paragraph(
            f"{count(train['steps'])} steps in {charts.minutes(train['seconds'])} minutes in {engine(results, 'train')}: "
            f"{count(train['steps_per_s'])} steps per second, physics, network and learner together. Figures are of the noisy "
            "policy that explores.",
            "note",
        ),
        markup.pair(markup.figure(success, "Success, % of episodes"), markup.figure(error, "Mean fingertip error, mm")),
    )


def _comparison(results: Results) -> str:
    shown = scores(results)
    episodes = results["eval"]["episodes"]
    success = charts.interval_chart(
        [
            charts.Interval(
                name=name,
                tone=tone,
                value=100.0 * one["success"],
                low=100.0 * one["success_ci95"][0],
                high=100.0 * one["success_ci95"][1],
            )
            for name, (tone, one) in shown.items()
        ],
        label="Success of baselines, v1 and v2 with 95 % intervals",
        x_label="success, % of episodes",
        x_range=(0.0, 100.0),
        text=lambda x: f"{x:.0f}",
    )
    returns = [
        charts.Interval(
            name=name, tone=tone, value=one["return_mean"], low=one["return_ci95"][0], high=one["return_ci95"][1]
        )
        for name, (tone, one) in shown.items()
    ]
    reward = charts.interval_chart(
        returns,
        label="Mean return of baselines, v1 and v2 with 95 % intervals",
        x_label="mean return of an episode",
        text=lambda x: f"{x:.0f}" if abs(x) >= 10 or x == 0 else f"{x:.1f}",
    )
    rows = [
        [
            BASELINE_TEXT.get(name, name),
            percent(one["success"]),
            f"{100 * one['success_ci95'][0]:.1f} to {100 * one['success_ci95'][1]:.1f} %",
            f"{one['tip_error_mm']:.2f}",
            f"{one['return_mean']:.1f}",
            f"{one['return_ci95'][0]:.1f} to {one['return_ci95'][1]:.1f}",
        ]
        for name, (_, one) in shown.items()
    ]
    return markup.section(
        "Beside those who learned nothing",
        markup.paragraph(
            f"The exported files and the baselines on the same {episodes} episodes (seeds from {results['seeds']['eval']}) in "
            f"{engine(results, 'test')}. Whiskers are 95 % intervals.",
            "note",
        ),
        markup.pair(markup.figure(success, "Success"), markup.figure(reward, "Return")),
        markup.table(["", "success", "95 % interval", "tip error, mm", "return", "95 % interval"], rows),
        markup.paragraph("The difference, episode for episode:", "note after"),
        markup.table(
            ["", "success, points", "95 % interval", "return", "95 % interval"],
            [
                [
                    name,
                    *_span(one["success"], one["success_ci95"], 100.0),
                    *_span(one["return_mean"], one["return_ci95"]),
                ]
                for name, one in results["eval"]["margins"].items()
            ],
        ),
    )


def _span(value: float, interval: Sequence[float], scale: float = 1.0) -> tuple[str, str]:
    """A difference and its interval, with signs."""
    low, high = (scale * bound for bound in interval)
    return f"{scale * value:+.1f}", f"{low:+.1f} to {high:+.1f}"


def _onboard(results: Results) -> str:
    run = results["onboard"]
    period_ms = 1000.0 / run["control_hz"]
    spreads = [
        charts.Spread(name=name, p50_ms=row["p50"], p99_ms=row["p99"], most_ms=row["most"])
        for name, row in run["times_ms"].items()
    ]
    chart = charts.latency_chart(
        spreads,
        limit_ms=period_ms,
        label="Median to 99th percentile, and largest, of the onboard loop's times beside its period",
        x_label="ms, logarithmic: median to 99 %, line to the largest",
    )
    rows = [
        [s.name, f"{s.p50_ms:.2f}", f"{s.p99_ms:.2f}", "" if s.most_ms is None else f"{s.most_ms:.2f}"] for s in spreads
    ]
    facts = markup.pairs(
        {
            "control rate": f"{run['control_hz']:g} Hz, {period_ms:g} ms per step",
            "steps": count(run["steps"]),
            "missed deadlines": f"{run['missed']} of {count(run['deadlines'])}, {run['missed_by_robot']} of them waiting for the hand",
            "processor": f"{percent(run['cpu_share'])} of one core",
            "energy per decision": energy(run["energy"]),
            "engine or learner in its process": ", ".join(run["imported_forbidden"]) or "none",
        }
    )
    return markup.section(
        "Onboard",
        markup.paragraph(
            "The exported file drives the hand at its control rate with absolute deadlines. The hand lives in another process; "
            "this one has imported neither an engine nor a learner. Decision: from the start of a period to the command that is "
            "sent; the network is part of it. Wake-up: how late the period started.",
            "note",
        ),
        markup.pair(markup.figure(chart, f"Times beside the period of {period_ms:g} ms"), facts),
        markup.table(["ms", "median", "99 %", "most"], rows),
    )


def _fleet(results: Results) -> str:
    fleet = results["fleet"]
    columns = ("recorded", "held", "pending", "lost", "doubled")
    rows = [
        [
            robot["name"],
            *(count(robot[c]) for c in columns),
            robot["policy"],
            "killed, restarted" if robot["name"] == fleet["killed"] else "",
        ]
        for robot in fleet["robots"]
    ]
    rows.append(["together", *(count(fleet[c]) for c in columns), "", ""])
    learned, deployment = results["learn"], fleet["deployment"]
    story = markup.pairs(
        {
            "killed": f"{fleet['killed']}, with SIGKILL, then started again on the same spool",
            "unknown key": "refused" if fleet["refused"] else "NOT refused",
            "v2 learned from": f"{count(learned['fleet_steps'])} steps of {len(fleet['robots'])} robots, in "
            f"{charts.minutes(learned['seconds'])}",
            "v2 on the first robot": _after(deployment["first_s"], deployment["first_robot"]),
            "v2 on all": _after(deployment["all_s"]),
            "deployment": f"{deployment['outcome']}. {deployment['reason']}".replace("_", " "),
        }
    )
    return markup.section(
        "A fleet of three",
        markup.paragraph(
            "A hub and three robots, each a process, over encrypted TCP with keys made on the spot. Control steps: recorded by the "
            "robot, held on the hub's disk, pending in the robot's spool. Lost and doubled are counted by reading the hub's log.",
            "note",
        ),
        markup.table(["robot", *columns, "runs", ""], rows, total=True, texts=(6, 7)),
        story,
    )


def _after(seconds: float | None, robot: str = "") -> str:
    return "not yet" if seconds is None else f"{robot + ', ' if robot else ''}{seconds:.1f} s after it was offered"


def _making(results: Results) -> str:
    stages = results["stages"]
    chart = charts.timeline(
        [(s["name"], s["start_s"], s["seconds"]) for s in stages], label="When each stage ran and how long it took"
    )
    commands = "".join(f"<li><code>{_escaped(c)}</code></li>" for s in stages for c in s["commands"])
    facts = markup.pairs(
        {**results["versions"], **{f"seed, {name}": str(seed) for name, seed in results["seeds"].items()}}
    )
    return markup.section(
        "How this was made",
        markup.pair(markup.figure(chart, f"Time, {charts.minutes(results['seconds'])} in all"), f"<div>{facts}</div>"),
        f"<details><summary>The commands, in order</summary><ol class=commands>{commands}</ol></details>",
    )


def _escaped(text: str) -> str:
    from html import escape

    return escape(text)


def summary(results: Results, report: str) -> list[str]:
    """What the terminal shows: ten lines, the report's path first."""
    robot, train, evaluated = results["robot"], results["train"], results["eval"]
    run, fleet = results["onboard"], results["fleet"]
    decision = run["times_ms"]["decision"]
    baselines = ", ".join(f"{name} {percent(one['success'])}" for name, one in evaluated["baselines"].items())

    def score(one: Mapping[str, Any]) -> str:
        low, high = one["success_ci95"]
        return (
            f"{percent(one['success'])} success ({100 * low:.1f} to {100 * high:.1f}), "
            f"tip error {one['tip_error_mm']:.1f} mm, n = {evaluated['episodes']}"
        )

    lines = {
        "report": report,
        "robot": f"{robot['name']}: {robot['joints']} joints on {robot['motors']} motors, {robot['mass_kg']:.2f} kg",
        "trained": f"{count(train['steps'])} steps in {charts.minutes(train['seconds'])}, {count(train['steps_per_s'])} steps/s",
        "baselines": baselines,
        "v1": score(evaluated["v1"]),
        "v2": score(evaluated["v2"]),
        "onboard": f"p50 {decision['p50']:.2f} ms, p99 {decision['p99']:.2f} ms at {run['control_hz']:g} Hz; "
        f"{run['missed']} of {run['deadlines']} deadlines missed; {percent(run['cpu_share'])} of a core",
        "energy": f"{energy(run['energy'])} per decision",
        "fleet": f"{len(fleet['robots'])} robots recorded {count(fleet['recorded'])} steps, held {count(fleet['held'])}, "
        f"lost {fleet['lost']}, doubled {fleet['doubled']}; {fleet['killed']} killed and restarted",
        "time": f"{charts.minutes(results['seconds'])} minutes",
    }
    return [f"  {name:<10} {text}" for name, text in lines.items()]
