"""Files of other stacks: read, explained, and what they leave open said."""

import numpy as np
import onnx
import pytest
from onboard_helpers import f4
from onnx import TensorProto, helper

from robot.errors import FlexorError
from robot.onboard import foreign
from robot.onboard.cli import inspect

JOINTS = ("left_hip", "left_knee", "right_hip")
MJLAB = {
    "run_path": "me/project/abc",
    "joint_names": ",".join(JOINTS),
    "joint_stiffness": "40.179,99.098,0.075",
    "joint_damping": "2.558,6.309,0.005",
    "default_joint_pos": "-0.312,0.669,-0.312",
    "command_names": "twist",
    "observation_names": "base_lin_vel,base_ang_vel,joint_pos,joint_vel,actions,command",
    "observation_terms_scale": "1.000,0.200,1.000,0.050,1.000,1.000",
    "observation_terms_flatten_history_dim": "1.000,1.000,1.000,1.000,1.000,1.000",
    "observation_terms_history_length": "0.000,0.000,5.000,0.000,0.000,0.000",
    "observation_terms_clip": "None,(-10.0, 10.0),None,None,None,None",
    "action_scale": "0.548,0.351,0.548",
}


def write(path, metadata, inputs=30):
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["obs", "w"], ["actions"])],
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, inputs])],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 3])],
        [f4("w", np.zeros((inputs, 3)))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(proto, metadata)
    onnx.save(proto, path)
    return path


def explained(tmp_path, metadata, **more):
    file = foreign.find(write(tmp_path / "policy.onnx", metadata, **more))
    assert file is not None
    return foreign.explain(file)


def test_what_an_mjlab_file_says_is_read(tmp_path):
    found = explained(tmp_path, MJLAB)
    assert found.wrong == ()
    assert found.terms[2] == ("joint_pos", "3", "1.000", "5.000")
    assert found.joints[1] == ("left_knee", "99.098", "6.309", "0.669", "0.351")
    assert not any(line.startswith("widths") for line in found.ambiguous)  # 3 + 3 + 3 * 5 + 3 + 3 + 3


@pytest.mark.parametrize(
    "change, inputs, says",
    [
        ({}, 30, "joint_damping is rounded to 3 decimals: the smallest may be off by 10 %"),
        ({}, 30, "observation_terms_clip cannot be split"),
        ({}, 30, "few robots can measure base_lin_vel"),
        ({}, 30, "whether the graph multiplies by action_scale already"),
        ({}, 31, "usual widths add up to 30, the graph takes 31"),
        ({"observation_terms_history_length": None}, 30, "does not say how many past steps"),
        (
            {"observation_names": "base_lin_vel,base_ang_vel,joint_pos,joint_vel,actions,phase"},
            30,
            "phase share 3 of the 30",
        ),
        ({"action_scale": None}, 30, "not in the file: action_scale"),
        ({"secret": "1"}, 30, "nothing is known here: secret"),
    ],
)
def test_what_it_leaves_open_is_said(tmp_path, change, inputs, says):
    metadata = {key: text for key, text in {**MJLAB, **change}.items() if text is not None}
    assert any(says in line for line in explained(tmp_path, metadata, inputs=inputs).ambiguous)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"joint_stiffness": "40.0,99.0"}, "joint_stiffness has 2 values for 3 joints"),
        ({"joint_damping": "2.558,0.000,1.0"}, "joint_damping is zero or no number for left_knee"),
        ({"action_scale": "0.5,0.5"}, "action_scale has 2 values"),
        ({"observation_terms_scale": "1.0"}, "observation_terms_scale has 1 values for 6"),
    ],
)
def test_what_contradicts_itself_is_wrong(tmp_path, change, says):
    assert any(says in line for line in explained(tmp_path, {**MJLAB, **change}).wrong)


def test_inspect_prints_it_and_still_refuses_a_file_that_says_nothing(tmp_path, capsys):
    inspect(str(write(tmp_path / "walk.onnx", MJLAB)), json=tmp_path / "walk.json")
    said = capsys.readouterr().out
    assert "left_knee" in said and "ambiguous: control rate" in said and (tmp_path / "walk.json").is_file()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FlexorError, match=r"flexor\.contract"):
        inspect(str(write(tmp_path / "empty" / "policy.onnx", {}).parent))
