"""Every refusal of the onboard runtime, by name, and the good file beside them that passes."""

import io
import re
import struct
import zipfile
from dataclasses import replace

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onboard_helpers import CONTRACT, HAND, STD, artifact, golden, model, npz
from onnx import TensorProto, helper, numpy_helper

from robot import artifacts
from robot.contract import OBSERVATION_TERMS, Term
from robot.errors import FlexorError
from robot.onboard import protobuf as pb
from robot.onboard import refusals as why
from robot.onboard.admission import admit, examine, fits, judge
from robot.onboard.artifact import from_bytes, read_golden
from robot.onboard.measures import SOURCES
from robot.onboard.onnxfile import read
from robot.onboard.onnxwrite import _varint, bytes_field, number_field
from robot.onboard.protobuf import FIXED32
from robot.onboard.rehearsal import rehearse

GOOD = artifact()


def weight(proto: onnx.ModelProto, name: str) -> TensorProto:
    return next(w for w in proto.graph.initializer if w.name == name)


def set_weight(proto: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    weight(proto, name).CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))


def set_prop(proto: onnx.ModelProto, key: str, value: str) -> None:
    next(p for p in proto.metadata_props if p.key == key).value = value


def carries(contract):
    """Edit: the file's contract becomes another one, announced consistently."""

    def edit(proto: onnx.ModelProto) -> None:
        set_prop(proto, artifacts.CONTRACT_KEY, contract.to_json())
        set_prop(proto, artifacts.CONTRACT_SHA256_KEY, contract.sha256)

    return edit


def test_a_good_artifact_is_admitted_and_says_what_was_compared():
    admission = admit(GOOD, HAND, control_hz=50.0, expected_sha256=GOOD.sha256)
    assert admission.figures["golden_samples"] == 8
    assert admission.figures["golden_max_difference"] <= 1e-5
    assert admission.interface.contract == CONTRACT


def test_our_reader_and_onnx_agree_on_everything_in_the_file():
    proto = model()
    file = read(proto.SerializeToString())
    assert file.opsets == {"": 18} and file.ir_version == proto.ir_version
    assert file.metadata == {p.key: p.value for p in proto.metadata_props}
    assert [(n.op, n.inputs, n.outputs) for n in file.nodes] == [
        (n.op_type, tuple(n.input), tuple(n.output)) for n in proto.graph.node
    ]
    assert set(file.constants) == {w.name for w in proto.graph.initializer}
    for w in proto.graph.initializer:
        np.testing.assert_array_equal(file.constants[w.name], numpy_helper.to_array(w))
    assert [(p.name, p.shape, p.dtype) for p in file.inputs] == [("obs", (1, CONTRACT.observation_size), "FLOAT")]


def test_the_file_says_how_to_explore():
    assert GOOD.exploration_std is not None
    np.testing.assert_array_equal(GOOD.exploration_std, np.full(CONTRACT.action_size, STD))


def test_bytes_other_than_announced_are_refused():
    altered = bytearray(GOOD.onnx)
    altered[len(altered) // 2] ^= 1
    with pytest.raises(why.AlteredFileError, match=f"announced with sha256 {GOOD.sha256[:12]}"):
        admit(replace(GOOD, onnx=bytes(altered)), HAND, expected_sha256=GOOD.sha256)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.7, 0.99])
def test_a_truncated_file_is_refused(share):
    with pytest.raises(why.AdmissionError) as caught:
        from_bytes(GOOD.onnx[: int(share * len(GOOD.onnx))])
    assert type(caught.value) in (why.TruncatedFileError, why.MissingContractError)


def test_no_prefix_of_a_file_gets_through_or_crashes_the_reader():
    rng = np.random.default_rng(0)
    for end in rng.integers(0, len(GOOD.onnx) - 1, 200):
        with pytest.raises(why.AdmissionError):
            from_bytes(GOOD.onnx[:end])


def test_random_damage_raises_only_our_own_errors():
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = np.frombuffer(GOOD.onnx, dtype=np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 20)] = rng.integers(0, 256, 20)
        try:
            examine(from_bytes(damaged.tobytes(), golden=npz(GOOD.golden)))
        except FlexorError:
            refused += 1
    assert refused > 30  # the rest only changed weights, which the golden vectors find


def test_a_file_past_the_cap_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr("robot.onboard.onnxfile.MAX_FILE_BYTES", 1000)
    with pytest.raises(why.FileTooLargeError, match="at most 1000 bytes"):
        from_bytes(GOOD.onnx)


def external(proto: onnx.ModelProto) -> None:
    tensor = weight(proto, "w0")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def half(proto: onnx.ModelProto) -> None:
    weight(proto, "w0").CopyFrom(numpy_helper.from_array(np.zeros((32, 32), dtype=np.float16), "w0"))


def double_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def subgraph(proto: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [])
    proto.graph.node.append(helper.make_node("If", ["obs"], ["never"], then_branch=inner, else_branch=inner))


def local_function(proto: onnx.ModelProto) -> None:
    proto.functions.append(helper.make_function("x", "F", [], [], [], []))


def unknown_operator(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].op_type = "Loop"


def other_domain(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.evil"


def opset_11(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 11


def extra_domain(proto: onnx.ModelProto) -> None:
    proto.opset_import.add(domain="com.microsoft", version=1)


def old_ir(proto: onnx.ModelProto) -> None:
    proto.ir_version = 3


def renamed_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].name = "observation"
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = "observation" if name == "obs" else name


def dynamic_batch(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def narrow_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3


def dangling(proto: onnx.ModelProto) -> None:
    proto.graph.node[3].input[0] = "nowhere"


STRUCTURE = {
    "external data": (external, why.ExternalDataError, "'w0' lives in another file"),
    "half weights": (half, why.DtypeError, "got FLOAT16"),
    "double input": (double_input, why.DtypeError, "input 'obs' must be FLOAT, got DOUBLE"),
    "subgraph": (subgraph, why.NestedGraphError, "subgraph"),
    "local function": (local_function, why.NestedGraphError, "local function"),
    "unknown operator": (unknown_operator, why.ForbiddenOperatorError, "'Loop'.*Known: Add, Clip"),
    "operator of another domain": (other_domain, why.ForbiddenOperatorError, "'com.evil.Max'"),
    "old opset": (opset_11, why.OpsetError, "17..21, got 11"),
    "another domain's opset": (extra_domain, why.OpsetError, "com.microsoft"),
    "old file version": (old_ir, why.OpsetError, "8..10, got 3"),
    "renamed input": (renamed_input, why.GraphInterfaceError, "observation"),
    "dynamic batch": (dynamic_batch, why.GraphInterfaceError, "-1"),
    "output of another width": (narrow_output, why.GraphInterfaceError, "outputs must be"),
    "a node that reads nothing": (dangling, why.GraphInterfaceError, "'nowhere'"),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_a_file_a_stranger_could_send_is_refused_without_running_it(name):
    edit, error, text = STRUCTURE[name]
    with pytest.raises(error, match=text):
        examine(artifact(edit=edit))


def swapped(names: tuple[str, ...]) -> tuple[str, ...]:
    return (names[1], names[0], *names[2:])


def changed(**fields):
    return carries(msgspec.structs.replace(CONTRACT, **fields))


def no_gains(proto: onnx.ModelProto) -> None:
    set_prop(proto, artifacts.CONTRACT_KEY, re.sub(r'("servo_stiffness_n_m":)\[[^]]*\]', r"\1[]", CONTRACT.to_json()))


def zero_gain(proto: onnx.ModelProto) -> None:
    gains = list(CONTRACT.servo_stiffness_n_m)
    gains[3] = 0.0
    set_prop(
        proto, artifacts.CONTRACT_KEY, msgspec.structs.replace(CONTRACT, servo_stiffness_n_m=tuple(gains)).to_json()
    )


def old_schema(proto: onnx.ModelProto) -> None:
    set_prop(proto, artifacts.CONTRACT_KEY, CONTRACT.to_json().replace('"schema":1', '"schema":0'))


def edited(proto: onnx.ModelProto) -> None:
    set_prop(proto, artifacts.CONTRACT_KEY, msgspec.structs.replace(CONTRACT, delay_range_s=(0.0, 0.5)).to_json())


def wxyz(proto: onnx.ModelProto) -> None:
    set_prop(proto, artifacts.CONTRACT_KEY, CONTRACT.to_json().replace("xyzw", "wxyz"))


def nameless(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]


def observing(**change):
    """A contract that observes tip forces and a history too, one term of it changed."""
    terms = {
        "joint_position": Term(
            name="joint_position",
            elements=HAND.joint_names[:2] * 2,
            unit="rad",
            frame="joint",
            low=(-1.0,) * 4,
            high=(1.0,) * 4,
            history=2,
        ),
        "tip_force": Term(
            name="tip_force", elements=HAND.tip_names, unit="N", frame="tip", low=(0.0,) * 5, high=(9.0,) * 5
        ),
        **{t.name: t for t in CONTRACT.observation if t.name in ("joint_target", "goal_error", "previous_action")},
    }
    for name, elements in change.items():
        terms[name] = msgspec.structs.replace(terms[name], elements=elements)
    return msgspec.structs.replace(CONTRACT, observation=tuple(terms.values()))


@pytest.mark.parametrize(
    "change, says",
    [
        ({"tip_force": swapped(HAND.tip_names)}, "tip_force: contract 5 entries"),
        ({"tip_force": ("a", "b", "c", "d", "e")}, "tip_force: .*'a'"),
        ({"goal_error": swapped(CONTRACT.goal)}, "goal_error"),
        ({"previous_action": swapped(CONTRACT.action.joints)}, "previous_action"),
        ({"joint_position": HAND.joint_names[:2] + HAND.joint_names[1::-1]}, "joint_position: older values"),
    ],
)
def test_an_observation_of_as_many_elements_by_other_names_is_refused(change, says):
    observing().bind(HAND)
    contract = observing(**change)
    contract.validate()
    with pytest.raises(why.ElementsError, match=says):
        fits(artifact(model(contract), contract), HAND)


CONTRACTS = {
    "no contract": (nameless, why.MissingContractError, "flexor.contract"),
    "no gains": (no_gains, why.ZeroGainsError, "missing"),
    "a zero gain": (zero_gain, why.ZeroGainsError, r"zero at motors \[3\]"),
    "an old schema": (old_schema, why.StaleContractError, "expected 1, got 0"),
    "edited after export": (edited, why.StaleContractError, "edited after the export"),
    "another quaternion order": (wxyz, why.BadContractError, "wxyz"),
    "another hand": (changed(robot="hand11"), why.OtherRobotError, "'hand11'"),
    "swapped joints": (changed(joint_names=swapped(CONTRACT.joint_names)), why.JointOrderError, "joint_names"),
    "swapped motors": (changed(motor_names=swapped(CONTRACT.motor_names)), why.JointOrderError, "motor_names"),
    "an older description": (changed(robot_sha256="0" * 64), why.StaleContractError, "robot_sha256"),
    "other gains": (
        changed(servo_stiffness_n_m=(1.0,) * len(CONTRACT.motor_names)),
        why.StaleContractError,
        "servo_stiffness",
    ),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_that_is_not_this_robots_is_refused(name):
    edit, error, text = CONTRACTS[name]
    with pytest.raises(error, match=text):
        fits(artifact(edit=edit), HAND)


def test_another_control_rate_is_refused():
    with pytest.raises(why.RateError, match="trained at 50 Hz, the robot runs at 25 Hz"):
        fits(GOOD, HAND, control_hz=25.0)


def other_weights(proto: onnx.ModelProto) -> None:
    set_weight(proto, "b2", numpy_helper.to_array(weight(proto, "b2")) + 1e-4)


def without_normaliser(proto: onnx.ModelProto) -> None:
    set_weight(proto, "mean", np.zeros((1, CONTRACT.observation_size)))
    set_weight(proto, "gain", np.ones((1, CONTRACT.observation_size)))


def action(**fields):
    return msgspec.structs.replace(CONTRACT, action=msgspec.structs.replace(CONTRACT.action, **fields))


SWAPPED_ACTIONS = action(joints=swapped(CONTRACT.action.joints))
OTHER_SCALE = action(scale_rad=(0.3,) * CONTRACT.action_size)


def poisoned(proto: onnx.ModelProto) -> None:
    set_weight(proto, "b1", np.full(32, np.nan))


def tried(made):
    """The rehearsal in this process; the judge's own is tested below."""
    return rehearse(made, period_s=CONTRACT.dt_s, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "edit, error, text",
    [
        (other_weights, why.GoldenMismatchError, "off by 0.0001"),
        (without_normaliser, why.GoldenMismatchError, r"actions\[\d+\] of sample"),
        (carries(SWAPPED_ACTIONS), why.JointTargetsError, "joints swapped or another scale"),
        (carries(OTHER_SCALE), why.JointTargetsError, "joints swapped or another scale"),
        (poisoned, why.GoldenMismatchError, "got nan"),
    ],
    ids=["altered weights", "missing normaliser", "swapped actions", "wrong scale", "NaN weights"],
)
def test_a_graph_that_is_not_what_was_exported_is_refused(edit, error, text):
    with pytest.raises(error, match=text):
        tried(artifact(edit=edit))


def test_a_policy_that_is_fine_on_its_golden_vectors_but_overflows_inside_its_ranges_is_refused():
    proto = model(activations=("Relu", "Relu"))
    mean, w = numpy_helper.to_array(weight(proto, "mean")), numpy_helper.to_array(weight(proto, "w0")).copy()
    w[0, 0] = 3e38  # times 10 standard deviations is infinite, times none is nothing
    set_weight(proto, "w0", w)
    arrays = golden(proto)
    arrays["obs"][:, 0] = mean[0, 0]
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for i, row in enumerate(arrays["obs"]):
        arrays["actions"][i], arrays["joint_targets"][i] = (x[0] for x in session.run(None, {"obs": row[None]}))
    with pytest.raises(why.OutputError, match="'actions' is not finite"):
        tried(artifact(proto, arrays=arrays))


def test_a_refusal_comes_out_of_the_judges_process_by_its_own_name():
    with pytest.raises(why.JointTargetsError, match="joints swapped or another scale"):
        judge(artifact(edit=carries(OTHER_SCALE)))


def test_a_policy_too_slow_for_its_period_is_refused():
    with pytest.raises(why.TooSlowError, match="at most 50%"):
        rehearse(GOOD, period_s=1e-7, rng=np.random.default_rng(0))
    assert rehearse(GOOD, period_s=1.0, rng=np.random.default_rng(0))["median_call_us"] > 0.0


def test_a_policy_that_observes_what_the_robot_cannot_measure_is_refused_by_term():
    gyro = Term(
        name="base_gyro", elements=("x", "y", "z"), unit="rad/s", frame="base", low=(-9.0,) * 3, high=(9.0,) * 3
    )
    blind = msgspec.structs.replace(CONTRACT, observation=(*CONTRACT.observation, gyro))
    with pytest.raises(why.UnmeasuredError, match=r"base_gyro: its base is fixed: no IMU"):
        fits(artifact(model(blind), blind), HAND)
    assert set(SOURCES) == set(OBSERVATION_TERMS)  # every term has a source to show


def test_golden_vectors_are_required_and_named():
    with pytest.raises(why.MissingGoldenError, match="no array 'obs'; it has none"):
        tried(replace(GOOD, golden={}))
    with pytest.raises(why.MissingGoldenError, match="at least 4 samples"):
        tried(replace(GOOD, golden={name: array[:2] for name, array in GOOD.golden.items()}))


def test_golden_vectors_are_read_without_pickle_and_within_bounds(tmp_path, monkeypatch):
    path = tmp_path / "golden.npz"
    np.savez(path, obs=np.array([{}], dtype=object))
    with pytest.raises(why.MissingGoldenError, match="no archive of arrays"):
        read_golden(path.read_bytes())
    with pytest.raises(why.MissingGoldenError, match="no archive of arrays"):
        read_golden(b"PK but not really")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("obs.npy", bytes(2_000_000))
    monkeypatch.setattr("robot.onboard.artifact.MAX_GOLDEN_BYTES", 100_000)
    with pytest.raises(why.FileTooLargeError, match="unpacks to"):
        read_golden(path.read_bytes())


def test_a_file_that_kills_the_native_code_takes_only_the_judge_with_it(monkeypatch):
    monkeypatch.setattr("robot.onboard.admission.case", lambda artifact, seed: b"short")
    with pytest.raises(why.JudgeError, match="exit code 1"):
        judge(GOOD)


def test_a_judge_that_takes_too_long_is_ended():
    with pytest.raises(why.JudgeError, match=r"took more than 0\.01 s"):
        judge(GOOD, timeout_s=0.01)


def test_every_refusal_is_an_admission_error_with_its_own_name():
    kinds = [kind for kind in vars(why).values() if isinstance(kind, type) and issubclass(kind, why.AdmissionError)]
    assert len(kinds) == 28
    assert all(why.by_name(kind.__name__) is kind for kind in kinds if kind is not why.AdmissionError)
    assert why.by_name("SomethingElse") is why.JudgeError


def float_field(number: int, value: float) -> bytes:
    return _varint(number << 3 | FIXED32) + struct.pack("<f", value)


def with_attribute(body: bytes) -> bytes:
    """The good file, an attribute of the node that gives the actions added as bytes."""
    out = b""
    for number, wire, value in pb.fields(memoryview(GOOD.onnx)):
        if wire == pb.VARINT:
            out += number_field(number, int(value))
        elif number != 7:
            out += bytes_field(number, bytes(value))
        else:
            graph = b""
            for n, _, v in pb.fields(value):
                node = bytes(v)
                if n == 1 and b"\x12\x07actions" in node:
                    node += bytes_field(5, body)
                graph += bytes_field(n, node)
            out += bytes_field(7, graph)
    return out


ALPHA = bytes_field(1, "alpha")


@pytest.mark.parametrize(
    "body",
    {
        "a float given twice": ALPHA + float_field(2, -1.0) + float_field(2, 1.0) + number_field(20, 1),
        "a float and an int": ALPHA + float_field(2, -1.0) + number_field(3, 1) + number_field(20, 1),
        "an int that says it is a float": ALPHA + number_field(3, 1) + number_field(20, 1),
        "a name given twice": ALPHA + ALPHA + float_field(2, 1.0) + number_field(20, 1),
        "an attribute given twice": bytes_field(1, "transB") + number_field(3, 0) + number_field(20, 2),
    }.values(),
    ids=lambda body: str(len(body)),
)
def test_what_readers_may_read_in_two_ways_is_refused(body):
    with pytest.raises(why.AmbiguousFileError):
        from_bytes(with_attribute(body), golden=npz(GOOD.golden))


def test_a_weight_or_metadata_key_given_twice_is_refused():
    proto = model()
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "b0"))
    with pytest.raises(why.AmbiguousFileError, match="weight 'b0'"):
        read(proto.SerializeToString())
    proto = model()
    proto.metadata_props.add(key=artifacts.CONTRACT_KEY, value="{}")
    with pytest.raises(why.AmbiguousFileError, match="metadata key"):
        read(proto.SerializeToString())
    proto = model()
    weight(proto, "b0").float_data.append(1.0)
    with pytest.raises(why.AmbiguousFileError, match="two places"):
        read(proto.SerializeToString())


def test_our_own_reading_is_held_against_the_golden_answers_too():
    bias = {**GOOD.file.constants, "b2": GOOD.file.constants["b2"] + np.float32(0.01)}
    other = replace(
        GOOD, file=replace(GOOD.file, constants=bias)
    )  # as if our reader took another value than onnxruntime
    with pytest.raises(why.GoldenMismatchError, match="by our own reading"):
        rehearse(other, period_s=0.02, rng=np.random.default_rng(0))


def test_files_in_the_users_folder_are_not_imported_by_the_judge(tmp_path, monkeypatch):
    for name in ("msgspec", "numpy", "robot"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported from where the user stands')")
    monkeypatch.chdir(tmp_path)
    assert judge(GOOD)["golden_samples"] == 8


def test_many_small_parts_are_refused_before_they_are_all_read():
    graph = bytes_field(1, b"") * 30_000
    with pytest.raises(why.FileTooLargeError, match="nodes"):
        read(bytes_field(7, graph))
    with pytest.raises(why.FileTooLargeError, match="fields"):
        read(bytes_field(6, "x") * 100_001)


def test_a_node_that_nobody_reads_is_refused():
    proto = model()
    proto.graph.node.insert(0, helper.make_node("Add", ["obs", "obs"], ["unused"]))
    with pytest.raises(why.GraphInterfaceError, match="nobody reads"):
        examine(artifact(proto, arrays={}))


def test_a_graph_that_makes_huge_tensors_is_refused_in_the_child():
    proto = model()
    weights = [
        numpy_helper.from_array(np.zeros((5000, 1), np.float32), "tall"),
        numpy_helper.from_array(np.zeros((1, 5000), np.float32), "wide"),
    ]
    proto.graph.initializer.extend(weights)
    proto.graph.node.insert(0, helper.make_node("Add", ["tall", "wide"], ["square"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1), np.int64), "first"))
    proto.graph.node.insert(1, helper.make_node("Gather", ["square", "first"], ["row"]))
    proto.graph.node.append(helper.make_node("Identity", ["row"], ["unread"]))
    made = artifact(proto, arrays=GOOD.golden)
    with pytest.raises(why.GraphInterfaceError, match="bytes of tensors"):
        judge(made)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"control_hz": 0.05}, "control_hz must be 5 to 2000"),
        ({"control_hz": float("nan")}, "JSON|control_hz"),
        (
            {"action": msgspec.structs.replace(CONTRACT.action, scale_rad=(1e300,) * CONTRACT.action_size)},
            "at most 6.28",
        ),
        (
            {
                "action": msgspec.structs.replace(
                    CONTRACT.action, joints=(CONTRACT.action.joints[0],) * CONTRACT.action_size
                )
            },
            "every joint once",
        ),
        (
            {"action": msgspec.structs.replace(CONTRACT.action, lower_rad=CONTRACT.action.upper_rad)},
            "lower_rad must be below",
        ),
    ],
)
def test_a_contract_that_would_switch_limits_off_is_refused(change, says):
    contract = msgspec.structs.replace(CONTRACT, **change)
    with pytest.raises(why.BadContractError, match=says):
        artifact(model(), arrays={}, edit=carries(contract))


def test_a_contract_with_sensors_that_nobody_has_is_refused_before_the_first_period():
    first = CONTRACT.observation[0]
    for term, error, says in (
        (
            Term(
                name="motor_position",
                elements=("nobody",) * first.size,
                unit="rad",
                frame="motor",
                low=first.low,
                high=first.high,
            ),
            why.BadContractError,
            "cannot be followed",
        ),
        (
            Term(
                name="previous_action",
                elements=("x",) * 400,
                unit="1",
                frame="action",
                low=(-1.0,) * 400,
                high=(1.0,) * 400,
            ),
            why.ElementsError,
            "contract 400 entries",
        ),
    ):
        contract = msgspec.structs.replace(CONTRACT, observation=(term, *CONTRACT.observation[1:]))
        with pytest.raises(error, match=says):
            fits(replace(GOOD, contract=contract), HAND)


def test_flipped_bytes_of_both_files_are_refused_by_name_or_harmless():
    rng = np.random.default_rng(0)
    files, refused = {"onnx": GOOD.onnx, "golden": npz(GOOD.golden)}, 0
    for name, good in files.items():
        for _ in range(250):
            data = bytearray(good)
            edges = (0, 400, len(good) - 400, len(good))
            start = rng.choice([0, 2])
            for at in rng.integers(edges[start], edges[start + 1], 3):
                data[at] = rng.integers(256)
            try:
                from_bytes(**{"onnx": GOOD.onnx, "golden": files["golden"], name: bytes(data)})
            except why.AdmissionError:
                refused += 1
    assert refused > 200


def test_an_archive_that_announces_more_than_it_holds_is_refused():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**15,)})
        archive.writestr("obs.npy", member.getvalue())
    with pytest.raises(why.MissingGoldenError, match="an array of shape"):
        read_golden(out.getvalue())
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(why.MissingGoldenError):
        read_golden(out.getvalue())
    proto = model()
    set_prop(proto, artifacts.CONTRACT_KEY, "[" * 100_000)
    with pytest.raises(why.BadContractError):
        from_bytes(proto.SerializeToString())


def test_a_graph_without_the_normaliser_its_metadata_names_is_refused_though_its_golden_vectors_agree():
    proto = model(normalise=False)
    with pytest.raises(why.MissingNormaliserError, match="applies that mean"):
        examine(artifact(proto))
    proto = model()
    for node in proto.graph.node:
        if node.name == "scaled":
            node.op_type = "Add"
    with pytest.raises(why.MissingNormaliserError, match="applies that standard deviation"):
        examine(artifact(proto, arrays={}))
