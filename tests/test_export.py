"""Export: the file says and does what the network, the contract and the card say."""

import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from policies.artifact import ArtifactFileError, PolicyFile
from policies.export import BackendError, ExportError, ParityError, UnsupportedLayerError, backends, export, write_card
from policies.export.graph import OPERATORS, OPSET, build, joint_targets, to_bytes
from policies.export.int8 import Comparison, levels
from policies.export.layers import LAYERS, Graph, emit
from policies.export.metadata import properties
from policies.export.parity import ACTION_TOLERANCE, TARGET_TOLERANCE_RAD, check_parity, gate_inputs
from policies.networks import ACTIVATIONS, Actor, Residual
from robot import artifacts
from robot.contract import Contract, ContractMismatchError
from robot.description import load
from robot.errors import UnknownNameError
from robot.mock import MockBackend, reach_contract
from robot.onboard import admission, artifact, onnxfile, operators

torch.set_num_threads(1)  # on networks this small two threads mostly wait for each other

MODEL = load("hand22")
RELATIVE = reach_contract(MODEL)
TRAINING = {"env": RELATIVE.env_id, "engine": "pybullet", "seed": 3, "steps": 1000, "commit": "abc", "learner": "ppo"}


def shuffled(contract: Contract) -> Contract:
    """The same, with the elements of `joint_target` in another order than the actions."""
    terms = tuple(
        msgspec.structs.replace(term, elements=term.elements[::-1]) if term.name == "joint_target" else term
        for term in contract.observation
    )
    return msgspec.structs.replace(contract, observation=terms)


def absolute(contract: Contract) -> Contract:
    offset = tuple(contract.home_rad[MODEL.index(joint)] for joint in contract.action.joints)
    action = msgspec.structs.replace(contract.action, mode="absolute", offset_rad=offset)
    return msgspec.structs.replace(contract, action=action)


def without_targets(contract: Contract) -> Contract:
    terms = tuple(term for term in contract.observation if term.name != "joint_target")
    return msgspec.structs.replace(contract, observation=terms)


CONTRACTS = {"relative": RELATIVE, "shuffled": shuffled(RELATIVE), "absolute": absolute(RELATIVE)}


@cache
def observations(contract: Contract, count: int, seed: int = 0) -> np.ndarray:
    """What an interface observes along a random walk of the mock robot, shape (count, n)."""
    rng = np.random.default_rng(seed)
    interface = contract.bind(MODEL)
    backend = MockBackend(MODEL, contract.control_hz)
    state = backend.reset(None, rng)
    memory = interface.memory(rng.uniform(-0.1, 0.1, len(contract.goal)))
    rows = []
    for _ in range(count):
        rows.append(interface.observe(state, memory))
        action = rng.uniform(-1.0, 1.0, contract.action_size)
        state = backend.step(interface.command(action, state))
        memory = replace(memory, previous_action=action)
    walk = np.array(rows)
    walk.setflags(write=False)
    return walk


def trained(contract: Contract, seed: int = 0, **config) -> Actor:
    """An actor with a used normaliser and actions of the size that trained ones have."""
    torch.manual_seed(seed)
    actor = Actor.for_contract(contract, **{"hidden": (32, 16), **config})
    actor.update_normalizer(torch.tensor(observations(contract, 200, seed + 1)))
    with torch.no_grad():
        actor.head.weight.mul_(50.0)  # from the 0.01 of the start to a spread of about 0.5
    return actor


RECORDED = observations(RELATIVE, 80)


def write(tmp_path: Path, actor: Actor | None = None, contract: Contract = RELATIVE, **options) -> Path:
    settings = {"recorded_observations": RECORDED, "training": TRAINING, **options}
    settings.setdefault("cross_check", False)  # a process of its own; the tests of it ask for it
    return export(actor or trained(contract), contract, tmp_path, "hand_reach", **settings)


def edited(data: bytes, constant: str, change) -> bytes:
    """The file with one constant changed: the fault that a guard has to find."""
    model = onnx.load_from_string(data)
    (tensor,) = [t for t in model.graph.initializer if t.name == constant]
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), constant))
    return to_bytes(model)


# ---- what the file computes


@pytest.mark.parametrize("squash", ["none", "tanh"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("contract", [RELATIVE, CONTRACTS["absolute"]], ids=["relative", "absolute"])
def test_file_and_network_agree_on_recorded_random_and_extreme_inputs(activation, layer_norm, squash, contract):
    actor = trained(contract, activation=activation, layer_norm=layer_norm, squash=squash)
    inputs = gate_inputs(actor, RECORDED, np.random.default_rng(1))
    assert {source: len(rows) for source, rows in inputs.items()} == {"recorded": 80, "random": 256, "extreme": 43}
    parity = check_parity(to_bytes(build(actor, contract, meta(contract))), actor, contract, inputs)
    assert parity.inputs == 379
    assert parity.action_difference <= ACTION_TOLERANCE
    assert parity.target_difference_rad <= TARGET_TOLERANCE_RAD


def meta(contract: Contract) -> dict[str, str]:
    return {artifacts.CONTRACT_KEY: contract.to_json()}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
def test_a_runner_that_knows_only_the_file_commands_what_the_interface_commands(tmp_path, contract):
    folder = write(tmp_path, contract=contract)
    policy = PolicyFile.from_bytes((folder / "policy.onnx").read_bytes())
    model = load(policy.contract.robot)
    interface = policy.contract.bind(model)
    moved = [model.index(joint) for joint in policy.contract.action.joints]
    rng = np.random.default_rng(7)
    backend = MockBackend(model, policy.contract.control_hz)
    state, memory = backend.reset(None, rng), interface.memory(rng.uniform(-0.1, 0.1, len(contract.goal)))
    worst, spread = 0.0, 0.0
    for _ in range(200):
        action, target = policy.run(interface.observe(state, memory))
        command = interface.command(action, state)
        worst = max(worst, float(np.abs(command.target_rad[moved] - target).max()))
        spread = max(spread, float(np.abs(command.target_rad - model.home_rad).max()))
        memory = replace(memory, previous_action=np.clip(action.astype(float), -1.0, 1.0))
        state = backend.step(command)
    assert worst < TARGET_TOLERANCE_RAD
    assert spread > 0.1  # rad: the policy did move the hand


def test_joint_targets_are_within_the_contracts_range_whatever_is_observed():
    actor = trained(RELATIVE)
    policy = PolicyFile.from_bytes(to_bytes(build(actor, RELATIVE, meta(RELATIVE))))
    lower, upper = (np.array(x, dtype=np.float32) for x in (RELATIVE.action.lower_rad, RELATIVE.action.upper_rad))
    rows = gate_inputs(actor, RECORDED, np.random.default_rng(0))["extreme"]
    targets = np.array([policy.run(row)[1] for row in rows])
    assert (targets >= lower).all() and (targets <= upper).all()
    assert (targets == lower).any() and (targets == upper).any()


def test_the_graph_is_one_static_file_of_opset_18_with_listed_operators_only():
    model = build(trained(RELATIVE, activation="silu", layer_norm=True, squash="tanh"), RELATIVE)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)] == [("", 18)]
    assert model.ir_version == 10
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert not any(t.external_data for t in model.graph.initializer)
    shapes = {
        port.name: [d.dim_value for d in port.type.tensor_type.shape.dim]
        for port in (*model.graph.input, *model.graph.output)
    }
    n, m = RELATIVE.observation_size, RELATIVE.action_size
    assert shapes == {"obs": [1, n], "actions": [1, m], "joint_targets": [1, m]}


def test_every_operator_that_a_layer_writes_is_listed():
    graph = Graph()
    for i, layer in enumerate(LAYERS):
        made = (
            layer(4)
            if layer in (nn.LayerNorm, Residual)
            else layer(4, 4)
            if layer in (nn.Linear, nn.GRUCell, nn.LSTMCell)
            else layer()
        )
        emit(graph, str(i), made, "x")
    assert len(graph.nodes) > len(LAYERS)
    assert {node.op_type for node in graph.nodes} <= OPERATORS


@pytest.mark.parametrize("kind", [nn.GRUCell, nn.LSTMCell])
def test_a_recurrent_cell_in_explicit_gates_stays_with_torch_for_1000_steps(kind):
    torch.manual_seed(0)
    cell, graph = kind(5, 8), Graph()
    size = 16 if kind is nn.LSTMCell else 8  # an LSTM's state is h and c, one after the other
    emit(graph, "cell", cell, graph.input("obs", 5))
    model = helper.make_model(
        helper.make_graph(graph.nodes, "gru", graph.inputs, graph.outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
    )
    import onnxruntime

    session = onnxruntime.InferenceSession(to_bytes(model), providers=["CPUExecutionProvider"])
    assert not {"GRU", "LSTM"} & {node.op_type for node in model.graph.node}
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    rows = np.random.default_rng(0).standard_normal((1000, 1, 5)).astype(np.float32)
    state, ours, worst = torch.zeros(1, size), np.zeros((1, size), dtype=np.float32), 0.0
    with torch.no_grad():
        for row in rows:
            seen = torch.from_numpy(row)
            state = cell(seen, state) if size == 8 else torch.cat(cell(seen, (state[:, :8], state[:, 8:])), dim=1)
            (ours,) = session.run(["h_out"], {"obs": row, "h_in": ours})
            worst = max(worst, float(np.abs(state.numpy() - ours).max()))
    assert worst < ACTION_TOLERANCE


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_the_robots_own_arithmetic_agrees_with_the_network(activation):
    """`robot.onboard.operators` is what generated code and the numpy backend follow; it never met onnxruntime."""
    actor = trained(RELATIVE, activation=activation, layer_norm=True, squash="tanh")
    file = onnxfile.read(to_bytes(build(actor, RELATIVE, meta(RELATIVE))))
    rows = gate_inputs(actor, RECORDED, np.random.default_rng(0))
    for row in np.concatenate([rows["recorded"], rows["extreme"]]):
        seen = operators.evaluate(file, {"obs": row[None]})["actions"]
        with torch.no_grad():
            np.testing.assert_allclose(seen[0], actor.mean(torch.tensor(row)).numpy(), atol=ACTION_TOLERANCE, rtol=0.0)


def test_the_robot_admits_what_is_exported_and_reads_the_same_out_of_it(tmp_path):
    actor = trained(RELATIVE)
    loaded = artifact.load(write(tmp_path, actor))
    assert admission.admit(loaded, MODEL, control_hz=RELATIVE.control_hz).interface.contract == RELATIVE
    assert np.array_equal(loaded.exploration_std, actor.std.detach().double().numpy())
    assert np.array_equal(loaded.normaliser.mean, actor.normalizer.mean.numpy())


# ---- the gate


@pytest.mark.parametrize(
    "constant, change, output",
    [
        ("body.0.weight", lambda w: w + np.float32(0.01), "actions"),
        ("head.bias", lambda b: b + np.float32(2e-5), "actions"),
        ("normalizer.gain", np.ones_like, "actions"),
        ("normalizer.shift", np.zeros_like, "actions"),
        ("action.scale_rad", lambda s: s * np.float32(1.01), "joint_targets"),
        ("action.base_at", lambda i: i[::-1].copy(), "joint_targets"),
        ("action.range.high", lambda h: h + np.float32(0.01), "joint_targets"),
    ],
    ids=["weight", "bias", "missing normaliser", "missing mean", "wrong scale", "swapped joints", "wrong clamp"],
)
def test_a_planted_fault_in_the_file_is_found_and_named(constant, change, output):
    actor = trained(RELATIVE)
    data = to_bytes(build(actor, RELATIVE, meta(RELATIVE)))
    inputs = gate_inputs(actor, RECORDED, np.random.default_rng(1))
    with pytest.raises(
        ParityError, match=f"output '{output}' element [0-9]+ on (recorded|random|extreme) input [0-9]+"
    ) as info:
        check_parity(edited(data, constant, change), actor, RELATIVE, inputs)
    assert info.value.output == output


def test_a_file_that_answers_nan_is_no_match():
    actor = trained(RELATIVE)
    data = edited(to_bytes(build(actor, RELATIVE, meta(RELATIVE))), "head.bias", lambda b: b * np.float32(np.nan))
    with pytest.raises(ParityError, match="file nan"):
        check_parity(data, actor, RELATIVE, {"recorded": RECORDED})


def test_observations_from_a_read_only_pack_are_welcome():
    assert not RECORDED.flags.writeable
    actor = trained(RELATIVE)
    parity = check_parity(to_bytes(build(actor, RELATIVE, meta(RELATIVE))), actor, RELATIVE, {"recorded": RECORDED})
    assert parity.inputs == 80


def test_a_failed_gate_leaves_nothing_behind(tmp_path, monkeypatch):
    def break_it(model):
        return edited(to_bytes(model), "body.0.weight", lambda w: w + np.float32(0.01))

    monkeypatch.setattr("policies.export.write.graph.to_bytes", break_it)
    with pytest.raises(ParityError):
        write(tmp_path)
    assert list(tmp_path.rglob("*")) == []


def test_an_interrupted_write_leaves_no_half_artifact(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("policies.export.write.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert artifacts.known_artifacts(tmp_path) == {}


# ---- what is refused


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    actor = trained(RELATIVE)
    with torch.no_grad():
        actor.body[2].weight[1, 2] = torch.nan
    with pytest.raises(ExportError, match=r"weight body\.2\.weight must be finite, got NaN or infinity in 1 of 512"):
        write(tmp_path, actor)
    assert list(tmp_path.iterdir()) == []


def test_a_normaliser_that_saw_nothing_is_refused(tmp_path):
    with pytest.raises(ExportError, match="normaliser has seen no observations"):
        write(tmp_path, Actor.for_contract(RELATIVE))


def test_an_actor_of_another_width_is_refused(tmp_path):
    with pytest.raises(ExportError, match="actor takes 5 observations and gives 2 actions"):
        write(tmp_path, Actor(5, 2))


def test_an_actor_that_clips_to_other_ranges_is_refused(tmp_path):
    actor = trained(RELATIVE)
    actor.inputs.high[3] += 0.5
    with pytest.raises(ExportError, match=r"other ranges than the contract in 1 elements; first: high\[3\]"):
        write(tmp_path, actor)


def test_relative_actions_need_the_target_in_force(tmp_path):
    contract = without_targets(RELATIVE)
    with pytest.raises(ExportError, match="the observation has no term joint_target"):
        build(trained(contract), contract)


def test_relative_actions_need_the_target_of_every_joint_they_move():
    terms = tuple(
        msgspec.structs.replace(t, elements=t.elements[1:], low=t.low[1:], high=t.high[1:])
        if t.name == "joint_target"
        else t
        for t in RELATIVE.observation
    )
    contract = msgspec.structs.replace(RELATIVE, observation=terms)
    with pytest.raises(ExportError, match="without these joints: forearm_pronation"):
        build(trained(contract), contract)


def test_a_layer_without_a_row_is_refused_and_the_known_ones_are_listed():
    actor = trained(RELATIVE)
    actor.body[1] = nn.GELU()
    with pytest.raises(UnsupportedLayerError, match=r"layer body\.1 is a GELU.*\n?.*Linear, LayerNorm"):
        build(actor, RELATIVE)


def test_a_contract_of_a_robot_that_has_changed_is_refused(tmp_path):
    contract = msgspec.structs.replace(RELATIVE, robot_sha256="0" * 64)
    with pytest.raises(ContractMismatchError, match="robot_sha256"):
        write(tmp_path, contract=contract, actor=trained(RELATIVE))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"recorded_observations": RECORDED[:, :-1]}, r"must have shape \(k, 130\)"),
        ({"recorded_observations": np.zeros_like(RECORDED)}, "16 different rows or more, got 1"),
        ({"recorded_observations": RECORDED[:15]}, "16 different rows or more, got 15"),
        (
            {"recorded_observations": np.where(np.arange(RECORDED.shape[1]) == 4, np.nan, RECORDED)},
            r"NaN or infinity in rows \[0, 1",
        ),
        ({"training": {"env": "x"}}, "missing: engine, seed, steps, commit, learner"),
        ({"training": {**TRAINING, "wall_s": float("nan")}}, "training must be JSON"),
        ({"version": "3"}, "version must be v1, v2"),
        ({"version": "v0"}, "version must be v1, v2"),
    ],
)
def test_inputs_that_cannot_be_trusted_are_refused(tmp_path, options, message):
    assert RECORDED.shape[1] == 130
    with pytest.raises(ExportError, match=message):
        write(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["HandReach", "../up", "", "a b", "_x"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ExportError, match="snake_case"):
        export(trained(RELATIVE), RELATIVE, tmp_path, name, recorded_observations=RECORDED, training=TRAINING)


# ---- what lies on disk


def test_the_same_export_gives_the_same_bytes(tmp_path):
    first, second = (write(tmp_path / place) for place in "ab")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["card.md", "golden.npz", "policy.onnx"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_an_export_takes_less_than_a_second(tmp_path):
    actor = trained(RELATIVE, hidden=(512, 256, 128))
    start = time.process_time()
    write(tmp_path, actor)
    assert time.process_time() - start < 1.0


def test_the_robots_backends_are_part_of_the_gate_and_the_card_says_what_they_gave(tmp_path):
    card = (write(tmp_path, cross_check=True) / "card.md").read_text()
    assert "The robot's backends against the network over" in card
    for name in ("c ", "onnxruntime ", "numpy "):
        assert name in card.partition("steps")[2]


def test_a_memory_is_carried_through_a_thousand_steps_by_every_backend_of_the_robot():
    torch.manual_seed(0)
    actor = trained(RELATIVE, hidden=(32,), memory=24)
    rng = np.random.default_rng(0)
    data = to_bytes(build(actor, RELATIVE, properties(actor, RELATIVE, MODEL, TRAINING)))
    steps = backends.trace(actor, RELATIVE, gate_inputs(actor, RECORDED, rng), rng)
    assert steps["fresh"][-backends.RECURRENT_STEPS :].sum() == 1  # a thousand in a row
    report = backends.check_backends(data, steps)
    assert set(report.actions) == {"c", "onnxruntime", "numpy"} and max(report.actions.values()) <= 1e-5
    steps["actions"][-1, 3] += 1e-3  # the network says something else at the last step
    with pytest.raises(BackendError, match="actions of the robot's backends and of the network differ"):
        backends.check_backends(data, steps)
    with pytest.raises(BackendError, match="would not read this file: TruncatedFileError"):
        backends.check_backends(data[:-3000], steps)


@pytest.mark.parametrize("memory", [0, 24])
def test_weights_of_eight_bits_are_a_quarter_of_the_file_and_what_the_robot_runs(memory, tmp_path):
    actor = trained(RELATIVE, hidden=(128, 64), memory=memory)
    whole, small = write(tmp_path, actor), write(tmp_path, actor, int8=True, cross_check=True)
    sizes = [(folder / "policy.onnx").stat().st_size - len(meta_text(folder)) for folder in (whole, small)]
    assert sizes[1] < 0.4 * sizes[0]
    loaded = artifact.load(small)
    assert {value.dtype.name for value in loaded.file.constants.values()} == {"float32", "int8", "int64"}
    assert loaded.file.parameters >= artifact.load(whole).file.parameters
    admission.admit(loaded, MODEL)
    rows = RECORDED[:32]
    apart = [np.abs(PolicyFile.load(whole).run(row)[0] - PolicyFile.load(small).run(row)[0]).max() for row in rows]
    assert 1e-5 < max(apart) < 0.1  # it is another policy, and not by much


def meta_text(folder: Path) -> str:
    return "".join(k + v for k, v in artifact.load(folder).file.metadata.items())


def test_eight_bit_levels_are_within_half_a_step_of_the_weights():
    weights = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    weights[3] = 0.0
    q, scale = levels(weights)
    assert q.dtype == np.int8 and (np.abs(weights - q * scale[:, None]) <= 0.5 * scale[:, None] * (1 + 1e-5)).all()
    assert (np.abs(q).max(axis=1) == [127, 127, 127, 0, 127, 127, 127]).all()


@pytest.mark.parametrize(
    "success, size, latency, says",
    [
        ((1.0, 0.985), (100, 30), (50.0, 50.0), "98.5 % is below 99 %"),
        ((0.9, 0.9), (100, 100), (50.0, 51.0), "neither the file is smaller nor a decision faster"),
        ((0.9, 0.892), (100, 30), (50.0, 70.0), None),
        ((0.9, 0.9), (100, 120), (50.0, 40.0), None),
        ((0.9, float("nan")), (100, 30), (50.0, 40.0), "success nan % is below"),
    ],
)
def test_eight_bits_ship_only_where_success_stays_and_something_is_gained(success, size, latency, says):
    found = Comparison(episodes=100, success=success, size_bytes=size, latency_us=latency).reasons
    assert (says is None and not found) or (len(found) == 1 and says in found[0])


def test_versions_count_up_and_are_never_overwritten(tmp_path):
    assert [write(tmp_path).name for _ in range(2)] == ["v1", "v2"]
    before = (tmp_path / "hand_reach/v1/policy.onnx").stat().st_mtime_ns
    with pytest.raises(ExportError, match=r"v1 exists.*\n?.*v3"):
        write(tmp_path, version="v1")
    assert (tmp_path / "hand_reach/v1/policy.onnx").stat().st_mtime_ns == before
    assert write(tmp_path, version="v10").name == "v10"
    assert write(tmp_path).name == "v11"
    assert artifacts.known_artifacts(tmp_path) == {"hand_reach": ["v1", "v2", "v10", "v11"]}


def test_golden_samples_are_what_the_file_answers_half_of_them_recorded(tmp_path):
    folder = write(tmp_path)
    policy = PolicyFile.load(folder)
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    assert {name: array.shape for name, array in arrays.items()} == {
        "obs": (64, 130),
        "actions": (64, 25),
        "joint_targets": (64, 25),
    }
    assert all(array.dtype == np.float32 for array in arrays.values())
    recorded = {row.tobytes() for row in RECORDED}
    assert sum(row.tobytes() in recorded for row in arrays["obs"]) == 32
    for row, action, target in zip(*arrays.values()):
        ours = policy.run(row)
        assert np.array_equal(ours[0], action) and np.array_equal(ours[1], target)
    assert arrays["actions"].std() > 0.1  # an untrained or empty graph would give nearly the same everywhere


def test_the_card_says_how_it_came_about_and_how_to_repeat_it(tmp_path):
    folder = write(tmp_path)
    card = (folder / "card.md").read_text()
    for text in (
        "# hand_reach/v1",
        "| seed | 3 |",
        "| engine | pybullet |",
        "Not measured yet",
        "flexor train flexor/HandReach-v0",
    ):
        assert text in card
    result = {
        **{"engine": "pybullet", "episodes": 100, "seed": 0, "randomization": True},
        **{"success": 0.93, "success_ci95": [0.862, 0.966], "return_mean": 21.5, "return_ci95": [20.0, 23.0]},
        **{"metrics": {"tip_error_mm": {"mean": 3.25, "ci95": [3.0, 3.5]}}, "energy_j": {"mean": 12.0, "ci95": None}},
    }
    sha256 = PolicyFile.load(folder).sha256
    write_card(folder, {"hand_reach/v1": result, "zero": {**result, "energy_j": None}}, machine="a test")
    again = (folder / "card.md").read_text()
    row = "| hand_reach/v1 | pybullet | 100 | 93.0 % [86.2, 96.6] | 21.5 [20, 23] | tip_error_mm 3.25 [3, 3.5] | 12 |"
    assert row in again and "Measured on: a test." in again and "Not measured yet" not in again
    assert card.partition("## Checked at export")[2] == again.partition("## Checked at export")[2]
    assert PolicyFile.load(folder).sha256 == sha256
    assert sorted(path.name for path in folder.iterdir()) == ["card.md", "golden.npz", "policy.onnx"]


# ---- metadata


def test_metadata_is_lossless(tmp_path):
    actor = trained(RELATIVE)
    properties = PolicyFile.load(write(tmp_path, actor)).properties
    assert Contract.from_json(properties["flexor.contract"]) == RELATIVE
    assert properties["flexor.contract_sha256"] == RELATIVE.sha256
    assert json.loads(properties["flexor.training"]) == TRAINING
    assert np.array_equal(json.loads(properties["flexor.exploration"]), actor.std.detach().double().numpy())
    statistics = json.loads(properties["flexor.normalizer"])
    assert np.array_equal(statistics["mean"], actor.normalizer.mean.numpy())
    np.testing.assert_allclose(np.square(statistics["std"]), actor.normalizer.var.numpy() + 1e-8, rtol=1e-12)


def test_a_gain_of_4e_4_survives_the_csv_keys(tmp_path):
    """Three decimals, as other exporters write, would turn it into 0.000."""
    action = msgspec.structs.replace(RELATIVE.action, scale_rad=(4e-4,) * 25)
    contract = msgspec.structs.replace(RELATIVE, action=action)
    properties = PolicyFile.load(write(tmp_path, trained(contract), contract)).properties
    assert [float(x) for x in properties["action_scale"].split(",")] == [4e-4] * 25


def test_the_csv_keys_that_other_stacks_read_are_there_and_agree_with_the_contract(tmp_path):
    properties = PolicyFile.load(write(tmp_path)).properties
    rows = {
        key: properties[key].split(",")
        for key in (
            *(
                "joint_names",
                "joint_stiffness",
                "joint_damping",
                "default_joint_pos",
                "command_names",
                "observation_names",
            ),
            *("action_scale", "observation_terms_scale", "observation_terms_history_length"),
            *("observation_terms_flatten_history_dim", "observation_terms_clip"),
        )
    }
    assert tuple(rows["joint_names"]) == RELATIVE.joint_names
    assert [float(x) for x in rows["default_joint_pos"]] == list(RELATIVE.home_rad)
    assert rows["observation_names"] == [term.name for term in RELATIVE.observation]
    assert len(rows["joint_stiffness"]) == len(rows["joint_damping"]) == 25
    index = RELATIVE.joint_names.index("index_dip")
    (tendon,) = [t for t in MODEL.tendons if t.joint == "index_dip"]
    (arm,) = [a for a in tendon.arms if a.joint == "index_dip"]
    assert float(rows["joint_stiffness"][index]) == pytest.approx(arm.flexor_m**2 * tendon.servo_stiffness_n_m)
    assert "run_path" in properties
    assert all(len(rows[key]) == len(RELATIVE.observation) for key in rows if key.startswith("observation_terms"))


def test_the_contract_hash_in_the_file_follows_the_contract(tmp_path):
    one, two = (PolicyFile.load(write(tmp_path, contract=c)).properties for c in (RELATIVE, CONTRACTS["absolute"]))
    assert one["flexor.contract_sha256"] != two["flexor.contract_sha256"]


def test_every_key_and_operator_is_in_the_document(tmp_path):
    text = (Path(__file__).resolve().parents[1] / "docs/artifacts.md").read_text()
    properties = PolicyFile.load(write(tmp_path)).properties
    assert len(properties) == 17
    assert [key for key in properties if f"`{key}`" not in text] == []
    assert f"`{' '.join(sorted(OPERATORS))}`" in text


# ---- reading back


@pytest.mark.parametrize("broken", ["empty", "truncated", "not a model"])
def test_bytes_that_are_no_model_are_refused(tmp_path, broken):
    data = (write(tmp_path) / "policy.onnx").read_bytes()
    bad = {"empty": b"", "truncated": data[: len(data) // 2], "not a model": b"hello" * 100}[broken]
    with pytest.raises(ArtifactFileError, match="not a model onnxruntime can load"):
        PolicyFile.from_bytes(bad)


def test_a_model_without_a_contract_is_refused():
    with pytest.raises(ArtifactFileError, match=r"has no 'flexor\.contract'"):
        PolicyFile.from_bytes(to_bytes(build(trained(RELATIVE), RELATIVE)))


def test_a_model_with_the_contract_of_another_is_refused():
    other = without_targets(CONTRACTS["absolute"])
    data = to_bytes(build(trained(RELATIVE), RELATIVE, meta(other)))
    with pytest.raises(ArtifactFileError, match=r"'obs' must be \[1, 105\], got \[1, 130\]"):
        PolicyFile.from_bytes(data)


def test_a_found_artifact_is_a_folder_a_name_or_a_version(tmp_path):
    v1, v2 = write(tmp_path), write(tmp_path)
    for given in ("hand_reach", "hand_reach/v2", v2, str(v2), v2 / "policy.onnx", tmp_path / "hand_reach"):
        assert artifacts.find_artifact(given, tmp_path) == v2
    assert artifacts.find_artifact("hand_reach/v1", tmp_path) == v1
    with pytest.raises(
        UnknownNameError, match=r"Did you mean 'hand_reach'.*Known: hand_reach, hand_reach/v1, hand_reach/v2"
    ):
        artifacts.find_artifact("hand_reech", tmp_path)
    with pytest.raises(UnknownNameError, match="hand_reach/v3"):
        artifacts.find_artifact("hand_reach/v3", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(artifacts.ArtifactNotFoundError, match=r"holds no policy\.onnx"):
        artifacts.find_artifact(empty, tmp_path)


def test_the_reference_of_the_gate_is_what_the_interface_commands():
    interface = RELATIVE.bind(MODEL)
    rng = np.random.default_rng(0)
    backend = MockBackend(MODEL, RELATIVE.control_hz)
    state = backend.reset(None, rng)
    for _ in range(20):
        action = rng.uniform(-2.0, 2.0, 25)
        row = interface.observe(state, interface.memory())
        command = interface.command(action, state)
        ours = joint_targets(RELATIVE, row[None], action[None])[0]
        np.testing.assert_allclose(ours, command.target_rad, atol=TARGET_TOLERANCE_RAD, rtol=0.0)
        state = backend.step(command)
