"""The learning benchmarks: their figures follow from their runs, and what is there is not made again. The runs themselves are slow."""

from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import pytest
from test_sac import counted

from policies import bench_train, fleet_bench
from policies.bench_train import CONTENDERS, figures, run_all, specs, text, time_to
from policies.curves import write_svg
from policies.fleet_bench import RobotRun, body_of, chunks_of
from policies.race import Mark, Marks, Result, Spec, success_of
from policies.rollout import EnvFacts
from robot.errors import UnknownNameError
from robot.packs import open_pack, write_pack
from sim.randomization import Ranges

REACH = "flexor/HandReach-v0"


def spec(contender: str, seed: int, out: Path | str = "x.json") -> Spec:
    return Spec(
        contender=contender,
        env_id=REACH,
        engine="mujoco",
        seed=seed,
        seconds=100.0,
        marks=4,
        episodes=2,
        workers=1,
        out=str(out),
    )


def result(contender: str, seed: int, successes: list[float]) -> Result:
    curve = tuple(
        Mark(seconds=25.0 * (i + 1), steps=100 * i, success=success, return_mean=0.0)
        for i, success in enumerate(successes)
    )
    return Result(spec=spec(contender, seed), curve=curve, steps=1000, seconds=100.0)


RESULTS = [
    result("ours", 0, [0.0, 0.96, 1.0, 1.0]),
    result("ours", 1, [0.97, 0.9, 1.0, 1.0]),
    result("ours", 2, [0.0, 0.95, 1.0, 1.0]),
    result("sb3_ppo", 0, [0.0, 0.0, 0.0, 0.1]),
    result("sb3_sac", 0, [0.0, 0.0, 0.0, 0.99]),
    result("sb3_ppo_ours", 0, [0.0, 0.0, 0.99, 0.99]),
]


def test_the_time_is_that_of_the_first_mark_that_reached_it():
    assert time_to(RESULTS[1], 0.95) == 25.0
    assert time_to(RESULTS[3], 0.95) is None


def test_ratios_are_against_the_best_of_each_group_and_a_miss_counts_as_the_budget():
    rows = figures(RESULTS)[REACH]
    assert rows["ours"]["time_s"] == [50.0, 25.0, 50.0]
    assert rows["ours"]["median_s"] == 50.0
    assert rows["sb3_ppo"]["median_s"] == 100.0
    assert rows["sb3_ppo"]["reached"] == 0
    assert rows["ours"]["over_best_stock"] == 0.5
    assert rows["ours"]["over_best_same_settings"] == pytest.approx(50 / 75)
    assert "median >=100 s (-)" in text(figures(RESULTS))


def test_nobody_is_called_faster_who_did_not_arrive():
    assert "over_best_stock" not in figures([result("ours", 0, [0.0]), *RESULTS[3:]])[REACH]["ours"]


def test_runs_that_are_there_are_not_made_again_and_others_are(tmp_path, monkeypatch):
    made = []

    def run(wanted: Spec) -> None:
        made.append((wanted.contender, wanted.seed))
        done = Result(spec=wanted, curve=(), steps=1, seconds=1.0)
        Path(wanted.out).write_bytes(msgspec.json.encode(done))

    monkeypatch.setattr(bench_train, "run", run)
    how = {"engine": "mujoco", "marks": 2, "episodes": 2, "workers": 1, "tasks": (REACH,)}
    wanted = specs(tmp_path, contenders=("ours", "sb3_ppo"), seeds=2, minutes=1.0, **how)
    Path(wanted[1].out).write_text("half a fi")
    assert len(run_all(wanted, lambda line: None)) == 4
    assert made == [("ours", 0), ("sb3_ppo", 0), ("ours", 1), ("sb3_ppo", 1)]
    run_all(wanted, lambda line: None)
    assert len(made) == 4
    run_all(specs(tmp_path, contenders=("ours",), seeds=1, minutes=2.0, **how), lambda line: None)
    assert made[4:] == [("ours", 0)]  # another budget is another run


def test_an_unknown_contender_lists_the_known_ones(tmp_path):
    with pytest.raises(UnknownNameError, match="sb3_ppo_zoo"):
        specs(
            tmp_path,
            tasks=(REACH,),
            contenders=("sb4",),
            seeds=1,
            minutes=1.0,
            engine="mujoco",
            marks=1,
            episodes=1,
            workers=1,
        )


def test_a_level_is_part_of_a_run_and_a_task_without_it_is_refused(tmp_path):
    how = {
        "contenders": ("ours",),
        "seeds": 1,
        "minutes": 1.0,
        "engine": "mujoco",
        "marks": 1,
        "episodes": 1,
        "workers": 1,
    }
    steady, whole = (specs(tmp_path, tasks=("flexor/BodyWalk-v0",), level=level, **how)[0] for level in ("steady", ""))
    assert steady.settings == {"engine": "mujoco", "level": "steady"} and whole.settings == {"engine": "mujoco"}
    assert steady.out != whole.out
    with pytest.raises(
        UnknownNameError,
        match=r"level of flexor/BodyWalk-v0 'steddy'.*Known: steady, turning, nudged, shoved, beyond, all",
    ):
        specs(tmp_path, tasks=("flexor/BodyWalk-v0",), level="steddy", **how)


def test_policies_are_put_aside_once_per_mark():
    now = [0.0]
    marks = Marks(spec("ours", 0), lambda: now[0])
    for second in range(0, 110, 10):
        now[0] = float(second)
        marks.offer(second, lambda: np.zeros_like)
    assert [(seconds, steps) for seconds, steps, _ in marks.kept] == [(30.0, 30), (50.0, 50), (80.0, 80), (100.0, 100)]


def test_success_is_counted_once_per_environment():
    success, total = success_of(lambda seen: np.zeros((len(seen), 22)), spec("ours", 0))
    assert success == 0.0
    assert 0.0 < total < 50.0


def test_curves_are_drawn_for_every_contender_and_task(tmp_path):
    write_svg(tmp_path / "curves.svg", RESULTS, {name: who.what for name, who in CONTENDERS.items()})
    svg = (tmp_path / "curves.svg").read_text()
    assert svg.count("stroke-opacity") == len(RESULTS)
    assert "flexor train" in svg and "ours_sac" not in svg


# ---- together


def test_a_robots_body_is_its_own_for_life():
    ours, again, other = body_of(1)["ranges"], body_of(1)["ranges"], body_of(2)["ranges"]
    assert ours == again != other
    assert all(low == high for low, high in ours.values())
    assert set(ours) == set(asdict(Ranges()))


def test_a_round_is_sealed_as_chunks_that_keep_every_step(tmp_path):
    facts = EnvFacts.of(REACH, {"engine": "mujoco"})
    path = counted(0, 6, end=3)
    small = msgspec.structs.replace(
        facts.contract,
        observation=(msgspec.structs.replace(facts.contract.observation[0], elements=("a",), low=(0.0,), high=(1.0,)),),
        action=msgspec.structs.replace(facts.contract.action, joints=("a",)),
    )
    from dataclasses import replace

    chunks = chunks_of(path, replace(facts, contract=small, reward_names=("r",)), "a" * 64, "0.0")
    assert [(c.header.steps, c.header.ended) for c in chunks] == [(4, "terminated"), (2, "no")] * 2
    write_pack(tmp_path / "p", chunks)
    pack = open_pack(tmp_path / "p")
    assert sorted(pack.observation[:, 0]) == [*range(6), *range(1000, 1006)]
    np.testing.assert_array_equal(pack.next_observation(np.array([3]))[0], [-5.0])


def test_the_share_is_of_what_one_needs_alone():
    def lived(robots: int, seed: int, hours: float) -> RobotRun:
        return RobotRun(
            robots=robots,
            seed=seed,
            engine="mujoco",
            target=0.95,
            hours=(hours / 2, hours),
            success=(0.9, 1.0),
            strangers=(0.5, 0.8),
            finished=True,
        )

    table = fleet_bench.figures([lived(1, 0, 0.4), lived(1, 1, 0.6), lived(8, 0, 0.05), lived(8, 1, 0.07)])
    assert table["8"]["share_of_alone"] == pytest.approx(0.06 / 0.5)
    assert table["8"]["on_strangers_median"] == 0.8
    assert "0.120" in fleet_bench.text(table)


@pytest.mark.slow
def test_a_fleet_learns_through_packs_and_what_is_there_is_not_lived_again(tmp_path):
    said = []
    how = {"seeds": 1, "engine": "mujoco", "rounds": 2, "workers": 1, "say": said.append}
    (run,) = fleet_bench.run_all(tmp_path, (4,), **how)
    assert len(run.hours) == 2
    assert run.hours[0] == pytest.approx(256 / 25.0 / 3600.0)
    fleet_bench.run_all(tmp_path, (4,), **how)
    assert len(said) == 2


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["ours", "sb3_ppo_ours"])
def test_a_contender_runs_against_the_clock(contender, tmp_path):
    wanted = msgspec.structs.replace(spec(contender, 0, tmp_path / "r.json"), seconds=15.0, marks=1)
    bench_train.run(wanted)
    done = bench_train.read(wanted)
    assert done is not None
    assert len(done.curve) >= 1
    assert done.steps > 0
