"""Inference backends give the same numbers; the tables say what is in a file."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onboard_helpers import CONTRACT, HAND, artifact, golden, model, write
from onnx import helper, numpy_helper

from robot.errors import UnknownNameError
from robot.onboard import artifact as artifacts
from robot.onboard import cli, codegen, compiled, tables
from robot.onboard.admission import admit
from robot.onboard.filter import make_filter
from robot.onboard.inference import BACKENDS, choose, make_inference
from robot.onboard.refusals import TruncatedFileError
from robot.onboard.rehearsal import random_observations
from robot.safety import Filter, Limits

PARITY = 1e-5  # relative above one
GOOD = artifact()


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """Compiled policies of these tests are kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activations", [("Elu", "Tanh"), ("Relu", "Sigmoid")])
def test_every_backend_gives_the_golden_answers(backend, activations):
    proto = model(activations=activations)
    made = artifact(proto)
    policy = make_inference(made, backend)
    observations = np.concatenate([made.golden["obs"], random_observations(CONTRACT, 50, np.random.default_rng(0))])
    expected = golden_of(proto, observations)
    for row, actions, targets in zip(observations, *expected):
        got = policy.act(row)
        assert (np.abs(got[0] - actions) / np.maximum(np.abs(actions), 1.0)).max() < PARITY
        assert np.abs(got[1] - targets).max() < PARITY


def golden_of(proto, observations):
    import onnxruntime

    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = [session.run(["actions", "joint_targets"], {"obs": row[None]}) for row in observations]
    return [r[0][0] for r in rows], [r[1][0] for r in rows]


@pytest.mark.parametrize("backend", BACKENDS)
def test_answers_are_fresh_and_the_question_is_left_alone(backend):
    policy = make_inference(GOOD, backend)
    a, b = GOOD.golden["obs"][:2]
    asked = a.copy()
    first = policy.act(asked)
    kept = first[0].copy(), first[1].copy()
    policy.act(b)
    np.testing.assert_array_equal(first[0], kept[0])
    np.testing.assert_array_equal(first[1], kept[1])
    np.testing.assert_array_equal(asked, a)


def test_an_unknown_backend_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="auto, c, onnxruntime, numpy"):
        make_inference(GOOD, "tensorrt")


def test_the_onnxruntime_session_keeps_no_pool_that_could_spin():
    from robot.onboard.ort import session

    options = session(GOOD.onnx).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.fixture
def shelf(tmp_path):
    for version, seed in (("v1", 0), ("v2", 1), ("v10", 2)):
        write(tmp_path / "hand_reach" / version, artifact(model(seed=seed)))
    return tmp_path


def test_a_name_means_its_newest_version(shelf):
    assert artifacts.load("hand_reach", shelf).version == "v10"
    assert artifacts.load("hand_reach/v2", shelf).label == "hand_reach/v2"
    assert artifacts.load(shelf / "hand_reach" / "v1" / "policy.onnx").label == "hand_reach/v1"


def test_an_unknown_artifact_lists_the_known_ones(shelf):
    with pytest.raises(UnknownNameError, match=r"'hand_reech'.*Did you mean 'hand_reach'.*hand_reach/v10"):
        artifacts.load("hand_reech", shelf)


def test_a_refusal_names_the_file(shelf):
    path = shelf / "hand_reach" / "v1" / "policy.onnx"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(TruncatedFileError, match=rf"{path}: the file is truncated"):
        artifacts.load(path)


def test_inspect_shows_every_observation_and_every_action(shelf, capsys):
    cli.inspect(str(shelf / "hand_reach" / "v1"), json=shelf / "out.json")
    text = capsys.readouterr().out
    for term, where in CONTRACT.slices.items():
        assert f"{where.start}:{where.stop}" in text and term in text
    for joint in CONTRACT.action.joints:
        assert joint in text
    assert (shelf / "out.json").is_file()


def test_diff_names_what_differs_and_only_that(shelf, capsys):
    a = artifacts.load("hand_reach/v1", shelf)
    assert tables.diff_table(a, a).startswith("hand_reach/v1 and hand_reach/v1 are the same")
    cli.diff(str(shelf / "hand_reach" / "v1"), str(shelf / "hand_reach" / "v2"))
    text = capsys.readouterr().out
    assert "policy.onnx" in text and "control_hz" not in text and "rad apart" in text
    assert tables.differences({"x": [1, 2], "y": 1}, {"x": [1, 3], "z": 2}) == [
        ("x[1]", "2", "3"),
        ("y", "1", "missing"),
        ("z", "missing", "2"),
    ]


def test_check_gives_a_verdict(shelf, capsys):
    cli.check(str(shelf / "hand_reach" / "v1"), HAND.name)
    assert "may drive hand22" in capsys.readouterr().out


def test_golden_vectors_of_the_helper_are_not_trivial():
    arrays = golden(model())
    assert np.std(arrays["actions"], axis=0).min() > 1e-3


def recurrent(hidden: int = 24, seed: int = 0) -> onnx.ModelProto:
    """A GRU cell with explicit gates: obs, h_in -> actions, joint_targets, h_out."""
    rng = np.random.default_rng(seed)
    proto = model()
    n, m = CONTRACT.observation_size, CONTRACT.action_size
    keep = [node for node in proto.graph.node if node.name.startswith("a.") or node.name == "joint_targets"]
    nodes, weights = [], [w for w in proto.graph.initializer if w.name.startswith("a.") or w.name in ("mean", "gain")]

    def node(op, output, *inputs, **attributes):
        nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def weight(name, value):
        weights.append(numpy_helper.from_array(value, name))
        return name

    def matrix(name, rows, columns):
        return weight(name, rng.normal(0.0, columns**-0.5, (rows, columns)).astype(np.float32))

    bias = weight("bias", rng.normal(0.0, 0.1, 3 * hidden).astype(np.float32))
    seen = node("Mul", "scaled", node("Sub", "centred", "obs", "mean"), "gain")
    from_x = node("Gemm", "from_x", seen, matrix("w", 3 * hidden, n), bias, transB=1)
    from_h = node("Gemm", "from_h", "h_in", matrix("u", 3 * hidden, hidden), bias, transB=1)
    axis, part = weight("axis", np.array([1])), {}
    for i, gate in enumerate("rzn"):
        ends = [weight(f"{gate}.{k}", np.array([(i + k) * hidden])) for k in (0, 1)]
        part[gate] = [node("Slice", f"{gate}.{s}", source, *ends, axis) for s, source in (("x", from_x), ("h", from_h))]
    r, z = (node("Sigmoid", g, node("Add", f"{g}.sum", *part[g])) for g in "rz")
    new = node("Tanh", "n", node("Add", "n.sum", part["n"][0], node("Mul", "reset", r, part["n"][1])))
    node("Add", "h_out", new, node("Mul", "kept", z, node("Sub", "change", "h_in", new)))
    norm = node("LayerNormalization", "normed", "h_out", weight("g", np.ones(hidden, np.float32)), axis=-1)
    joined = node("Concat", "joined", norm, "h_in", axis=1)
    node("Gemm", "actions", joined, matrix("head", m, 2 * hidden), transB=1)
    proto.graph.ClearField("node")
    proto.graph.node.extend([*nodes, *keep])
    proto.graph.ClearField("initializer")
    proto.graph.initializer.extend(weights)
    proto.graph.input.append(helper.make_tensor_value_info("h_in", onnx.TensorProto.FLOAT, [1, hidden]))
    proto.graph.output.append(helper.make_tensor_value_info("h_out", onnx.TensorProto.FLOAT, [1, hidden]))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_a_recurrent_state_is_carried_alike_for_a_thousand_steps_and_reset():
    made = artifact(recurrent(), arrays={})
    policies = {name: make_inference(made, name) for name in BACKENDS}
    rng = np.random.default_rng(0)
    apart = dict.fromkeys(policies, 0.0)
    first = {name: policy.act(np.zeros(CONTRACT.observation_size, np.float32))[0] for name, policy in policies.items()}
    for _ in range(1000):
        row = rng.normal(0.0, 1.0, CONTRACT.observation_size).astype(np.float32)
        answers = {name: policy.act(row)[0] for name, policy in policies.items()}
        for name, answer in answers.items():
            apart[name] = max(apart[name], float(np.abs(answer - answers["onnxruntime"]).max()))
    assert max(apart.values()) < PARITY
    for name, policy in policies.items():
        carried = policy.act(np.zeros(CONTRACT.observation_size, np.float32))[0]
        policy.reset()
        again = policy.act(np.zeros(CONTRACT.observation_size, np.float32))[0]
        np.testing.assert_array_equal(again, first[name])
        assert np.abs(carried - again).max() > 1e-3  # the state did matter


def traced() -> artifacts.Artifact:
    """A recurrent artifact with the golden trace that onnxruntime gives."""
    import onnxruntime

    proto = recurrent()
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    state = np.zeros((1, 24), dtype=np.float32)
    rows: dict[str, list[np.ndarray]] = {}
    for obs in golden(model())["obs"]:
        out = dict(zip(["actions", "joint_targets", "h_out"], session.run(None, {"obs": obs[None], "h_in": state})))
        for name, value in {"obs": obs[None], "h_in": state, **out}.items():
            rows.setdefault(name, []).append(value)
        state = out["h_out"]
    return artifact(proto, arrays={name: np.concatenate(values) for name, values in rows.items()})


def test_a_recurrent_artifact_is_admitted_with_its_trace():
    assert admit(traced(), HAND).figures["golden_samples"] == 8


def test_c_does_not_depend_on_the_weights_and_is_compiled_once(tmp_path):
    one, two = codegen.generate(GOOD.file), codegen.generate(artifact(model(seed=9)).file)
    assert one.c == two.c and not np.array_equal(one.weights, two.weights)
    library = compiled.build(one.c, tmp_path / "c")
    stamp = library.stat().st_mtime_ns
    assert compiled.build(two.c, tmp_path / "c") == library and library.stat().st_mtime_ns == stamp
    assert compiled.build(one.c + "\n", tmp_path / "c") != library


def test_weights_lie_in_huge_pages_where_the_system_has_them():
    offered = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not offered.exists() or "[never]" in offered.read_text():
        pytest.skip("this system has no huge pages")
    policy = compiled.CompiledInference(GOOD)
    _, weights, tensors = policy.pointers
    assert weights % compiled.HUGE_PAGE == 0 and tensors % 64 == 0
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    spans = (
        (line, [int(end, 16) for end in line.split()[0].split("-")]) for line in lines if re.match("[0-9a-f]+-", line)
    )
    next(line for line, (low, high) in spans if low <= weights and tensors < high)
    flags = next(line for line in lines if line.startswith("VmFlags"))
    assert "hg" in flags.split()


def test_compiled_code_that_gives_other_answers_is_not_used(monkeypatch):
    right = codegen.generate
    monkeypatch.setattr(compiled, "generate", lambda file: replace(right(file), weights=right(file).weights * 1.001))
    with pytest.raises(compiled.CompiledParityError, match="differ by"):
        make_inference(GOOD, "c")
    assert make_inference(GOOD, "auto").name == "onnxruntime"


def test_without_a_compiler_auto_takes_onnxruntime(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(compiled.CompilerError, match="no C compiler"):
        make_inference(GOOD, "c")
    policy, medians = choose(GOOD, pause=lambda seconds: None)
    assert policy.name == "onnxruntime" and set(medians) == {"onnxruntime"}


def test_a_cache_that_others_may_write_to_is_not_trusted(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)
    with pytest.raises(compiled.CompilerError, match="others may write"):
        compiled.build(codegen.generate(GOOD.file).c, tmp_path / "c")


def test_a_graph_without_c_is_said_so():
    proto = model()
    for node in proto.graph.node:
        if node.name == "a.scaled":
            node.input[1] = "actions"  # fine: two computed tensors of one shape
    codegen.generate(artifact(proto, arrays={}).file)
    proto.graph.node.insert(0, helper.make_node("MatMul", ["obs", "turned"], ["square"], name="square"))
    proto.graph.node.insert(0, helper.make_node("Concat", ["obs"] * CONTRACT.observation_size, ["turned"], axis=0))
    with pytest.raises(codegen.CodegenError, match="only a constant matrix"):
        codegen.generate(artifact(proto, arrays={}).file)


def test_the_bench_measures_every_backend_in_a_process_of_its_own(shelf, capsys):
    cli.bench(
        str(shelf / "hand_reach" / "v1"), rate_hz=200.0, seconds=0.1, repeats=1, peers=True, json=shelf / "b.json"
    )
    results = json.loads((shelf / "b.json").read_text())["results"]["artifact"]
    printed = capsys.readouterr().out
    for mode in ("default", "tuned", *BACKENDS):
        assert 0.0 < results[mode]["p50_us"] <= results[mode]["p99_us"] and results[mode]["cpu_share"] > 0.0
        assert mode in printed


def test_without_onnxruntime_a_policy_is_admitted_and_run_by_generated_c_or_by_numpy(monkeypatch):
    from robot.onboard import inference, rehearsal

    with_it = rehearsal.rehearse(GOOD, period_s=0.02, rng=np.random.default_rng(0))
    for module in (inference, rehearsal):
        monkeypatch.setattr(module, "available", lambda: False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed
    without = rehearsal.rehearse(GOOD, period_s=0.02, rng=np.random.default_rng(0))
    assert without["golden_samples"] == with_it["golden_samples"] and without["golden_max_difference"] <= 1e-5
    policy, medians = choose(GOOD, pause=lambda seconds: None)
    assert policy.name == "c" and set(medians) == {"c"}
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert choose(GOOD, pause=lambda seconds: None)[0].name == "numpy"
    with pytest.raises(ModuleNotFoundError):
        make_inference(GOOD, "onnxruntime")


def test_a_process_without_onnxruntime_runs_the_whole_loop(tmp_path):
    """`flexor run` in an interpreter that cannot import it; the judge's process can't either."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(
        "import importlib.abc, sys\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'onnxruntime':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, No())\n"
    )
    write(tmp_path / "test_policy" / "v1", GOOD)
    code = f"from robot.onboard import cli; cli.run({str(tmp_path / 'test_policy' / 'v1')!r}, backend='mock', seconds=0.3, realtime=False)"
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": f"{blocked}:{root}", "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "decisions by c" in done.stdout and re.search(r"^period +compiled$", done.stdout, re.MULTILINE)


def test_a_run_without_a_compiler_says_that_it_had_none(tmp_path):
    write(tmp_path / "test_policy" / "v1", GOOD)
    code = f"from robot.onboard import cli; cli.run({str(tmp_path / 'test_policy' / 'v1')!r}, backend='mock', seconds=0.3, realtime=False, flight_s=0.0)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PATH": str(tmp_path), "CC": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "in Python: the network is run by onnxruntime, not by generated C; no C compiler found" in done.stdout


def test_a_damaged_library_in_the_cache_is_compiled_again(tmp_path):
    text = codegen.generate(GOOD.file).c
    library = compiled.build(text, tmp_path / "c")
    library.write_bytes(b"")  # as a disk leaves it whose power went
    library.chmod(0o700)
    assert compiled.load(text, tmp_path / "c").act
    assert library.stat().st_size > 1000


def test_without_a_place_for_compiled_code_the_others_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in its place")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(compiled.CompilerError, match="no place for compiled code"):
        make_inference(GOOD, "c")
    assert choose(GOOD, pause=lambda seconds: None)[0].name == "onnxruntime"
    assert isinstance(make_filter(Limits.of(HAND, 0.02)), Filter)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("nobody")))
    with pytest.raises(compiled.CompilerError, match="no home folder"):
        make_inference(GOOD, "c")


def test_compiled_code_is_held_against_the_golden_answers():
    wrong = {**GOOD.golden, "actions": GOOD.golden["actions"] + np.float32(1e-3)}
    with pytest.raises(compiled.CompiledParityError, match="golden answers"):
        make_inference(replace(GOOD, golden=wrong), "c")


def test_compiled_code_is_held_against_the_golden_states_too():
    made = traced()
    make_inference(made, "c")
    wrong = {**made.golden, "h_out": made.golden["h_out"] + np.float32(1e-3)}
    with pytest.raises(compiled.CompiledParityError, match="golden answers"):
        make_inference(replace(made, golden=wrong), "c")


def test_a_compiler_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    """A compiler is a driver that starts the real one; who holds the other end of a pipe still runs."""
    os.mkfifo(tmp_path / "alive")
    driver = tmp_path / "cc"
    driver.write_text(f"#!/bin/sh\n[ $1 = --version ] && exit\nsleep 600 > {tmp_path / 'alive'} &\nwait\n")
    driver.chmod(0o700)
    monkeypatch.setenv("CC", str(driver))
    communicate, held = subprocess.Popen.communicate, []

    def late(process, *args, timeout=None, **more):
        if "--version" in process.args:
            return communicate(process, *args, timeout=timeout, **more)
        held.append((tmp_path / "alive").open("rb"))  # waits until the second program runs
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", late)
    with pytest.raises(compiled.CompilerError, match="took more than 60 s"):
        compiled.build("int x;", tmp_path / "c")
    with held[0] as alive:
        assert alive.read() == b""  # the end of the pipe: nobody holds it any more


@pytest.mark.parametrize("terms, known", [(40, True), (70, False)])
def test_a_maximum_of_many_stays_a_small_text(terms, known):
    proto = model()
    for node in proto.graph.node:
        if node.name == "raised":
            node.input.extend(["obs.low"] * terms)
    file = artifact(proto, arrays={}).file
    if known:
        assert len(codegen.generate(file).c) < 20_000
    else:
        with pytest.raises(codegen.CodegenError, match="at most 64"):
            codegen.generate(file)


def test_what_is_not_a_number_inside_passes_clips_and_maxima_as_in_numpy():
    proto = model(activations=("Relu", "Relu"))

    def spoil(proto):
        for w in proto.graph.initializer:
            if w.name == "mean":
                values = np.zeros((1, w.dims[1]), np.float32)
                values[0, 3] = np.nan
                w.raw_data = values.tobytes()

    made = artifact(proto, arrays={}, edit=spoil)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "check_parity", lambda *_: 0.0)
        policy = make_inference(made, "c")
    with np.errstate(invalid="ignore"):
        for one in (policy, make_inference(made, "numpy")):
            action, targets = one.act(np.zeros(CONTRACT.observation_size, np.float32))
            assert np.isnan(action).all() and np.isnan(targets).all()
