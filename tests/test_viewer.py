"""The live page: its geometry is the robot's, it shows what happened, and it serves nobody but this machine."""

import shutil
import socket
import subprocess
import urllib.request
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

import sim  # noqa: F401 - registers the environments
from robot.description import load
from robot.kinematics import TipKinematics
from sim.engines import ENGINES
from sim.scene import LinkPoses, TendonPaths, mesh
from sim.viewer import MAX_ARROW_M, Live, Viewer, ViewerError, arrows, snapshot, tension_color

HAND = load("hand22")
REACH = "flexor/HandReach-v0"


def reach(**settings) -> Any:
    return gymnasium.make(REACH, **{"engine": "mujoco"} | settings).unwrapped


@pytest.fixture
def page():
    made = Viewer(HAND)
    yield made
    made.close()


def test_the_links_are_where_the_contract_sees_the_tips():
    q = np.random.default_rng(0).uniform(HAND.lower_rad, HAND.upper_rad)
    poses = LinkPoses(HAND)
    rotation, origin = poses.at(q)
    palm = poses.names.index("palm")
    expected = TipKinematics(HAND).positions(q)
    for tip, in_palm in zip(HAND.tips, expected):
        row = poses.names.index(tip.link)
        in_world = origin[row] + rotation[row] @ np.array(tip.offset_m)
        np.testing.assert_allclose(rotation[palm].T @ (in_world - origin[palm]), in_palm, atol=1e-12)


@pytest.mark.parametrize("geom", [geom for link in HAND.links for geom in link.geoms], ids=lambda geom: geom.shape)
def test_a_mesh_is_closed_and_faces_outwards_with_the_volume_of_its_primitive(geom):
    vertices, faces = mesh(geom)
    a, b, c = (vertices[faces[:, k]] - np.array(geom.origin_m) for k in range(3))
    volume = (a * np.cross(b, c)).sum() / 6.0  # negative where triangles face inwards, wrong where one is missing
    r, length = geom.size_m[0], geom.size_m[-1]
    ball, pipe = 4.0 / 3.0 * np.pi * r**3, np.pi * r**2 * length
    exact = {"box": np.prod(geom.size_m), "sphere": ball, "cylinder": pipe, "capsule": ball + pipe}[geom.shape]
    assert volume == pytest.approx(exact, rel=0.04)


@pytest.mark.parametrize("row", range(len(HAND.tendons)), ids=HAND.motor_names)
def test_bending_a_joint_shortens_its_flexor_and_lengthens_its_extensor_on_the_picture_too(row):
    poses, paths = LinkPoses(HAND), TendonPaths(HAND)
    joint = HAND.index(HAND.tendons[row].joint)

    def lengths(q):
        ends = paths.segments(*poses.at(q))
        each = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
        return np.array([each[paths.cable_of_segment == 2 * row + side].sum() for side in (0, 1)])

    bent = np.zeros(len(HAND.joints))
    bent[joint] = 0.1
    flexor, extensor = lengths(bent) - lengths(0.0 * bent)
    assert flexor < 0.0 < extensor


def test_colours_say_slack_and_rise_from_blue_to_red():
    slack, low, middle, high, beyond = tension_color(np.array([0.0, 0.5, 12.0, 60.0, 500.0])).tolist()
    assert len(set(slack)) <= 2 and max(slack) < 100  # grey
    assert np.argmax(low) == 2 and np.argmax(middle) == 1 and np.argmax(high) == 0
    assert beyond == high


def test_arrows_are_as_long_as_forces_are_strong_up_to_a_limit():
    contacts = np.array(
        [[0.1, 0.2, 0.3, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 1e4, 0.0, 0.0]]
    )
    start, end = np.moveaxis(arrows(contacts), 1, 0)
    np.testing.assert_array_equal(start, contacts[:, :3])
    length = np.linalg.norm(end - start, axis=1)
    assert length[1] == pytest.approx(2.0 * length[0]) and length[2] == pytest.approx(MAX_ARROW_M)
    assert end[0, 2] > start[0, 2]


@pytest.mark.parametrize("engine", ENGINES)
def test_contacts_balance_what_the_fingers_press_with(engine):
    """A fist touches itself: forces are found, and those on the tips are no greater than what the tips feel."""
    env = reach(engine=engine, randomization=False)
    env.reset(seed=0)
    assert env.backend.contacts().arrows.shape == (0, 6)
    fist = [float("abduction" not in joint and "arch" not in joint) for joint in env.contract.action.joints]
    for _ in range(15):
        env.step(np.array(fist))
    contacts = env.backend.contacts().arrows
    assert contacts.shape[1] == 6 and len(contacts) > 0 and np.isfinite(contacts).all()
    strongest = np.linalg.norm(contacts[:, 3:], axis=1).max()
    assert strongest > 1.0
    assert env.state.tip_force_n.max() <= np.linalg.norm(contacts[:, 3:], axis=1).sum() + 1e-9
    env.close()


def test_the_page_answers_on_this_machine_only(page):
    assert page.url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(page.url) as answer:
        assert answer.status == 200 and b"<html" in answer.read(2000).lower()
    port = int(page.url.rpartition(":")[2])
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(2.0)
        other.connect(("127.0.0.2", port))  # loopback too, but not the address it is bound to


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(ViewerError, match=r"cannot serve on 192\.0\.2\.1: .* take an address of this machine"):
        Viewer(HAND, host="192.0.2.1")


def test_the_slider_holds_every_moment_and_pulling_it_stops_the_picture_there(page):
    env = reach()
    env.reset(seed=0)
    page.add(snapshot(env))
    for _ in range(5):
        env.step(np.ones(22))
        page.add(snapshot(env, {"tip_error_mm": 3.0}))
    assert page._time.value == 5 and "**0.20 s**" in page._text.content and "tip_error_mm: 3" in page._text.content
    bent = np.array(page._frames[-1].wxyz)

    page._time.value = 0
    page._pulled(SimpleNamespace(client="somebody"))
    assert "**0.00 s**" in page._text.content and page._live.value is False
    assert not np.allclose(page._frames[-1].wxyz, bent)
    env.step(np.ones(22))
    page.add(snapshot(env))  # remembered, not shown
    assert "**0.00 s**" in page._text.content
    page._time.value = 6
    page._pulled(SimpleNamespace(client="somebody"))
    assert "**0.24 s**" in page._text.content
    env.close()


def test_a_body_that_starts_anywhere_stands_before_the_camera():
    env: Any = gymnasium.make("flexor/BodyWalk-v0", engine="mujoco").unwrapped
    env.reset(seed=0)
    live = Live(env)
    for _ in range(2):
        at = env.world_state.base_position_m
        live.show()
        shown = np.array(live.viewer._all.position) + live.viewer._frames[0].position
        assert np.hypot(*at[:2]) > 2.0
        np.testing.assert_allclose(shown, [0.0, 0.0, at[2]], atol=1e-6)
        env.step(np.zeros(env.action_space.shape))
    live.close()
    env.close()


def test_the_page_shows_the_thing_of_the_moment_also_when_pulled_back_to_another_episodes():
    env: Any = gymnasium.make("flexor/HandGrasp-v0", engine="mujoco").unwrapped
    env.reset(seed=0)
    live, page = Live(env), []
    for kind in env.task.kinds[:2]:
        env.reset(options={"kind": kind})
        live.show()
        page.append(live.viewer._world)
    assert page[0] is not page[1] and page[1] is env.backend.world
    live.viewer._time.value = 0
    live.viewer._pulled(SimpleNamespace(client="somebody"))
    assert live.viewer._world is page[0]
    assert len(live.viewer._things) == len(page[0].bodies)
    live.close()
    env.close()


def test_render_mode_human_opens_the_page_and_says_where(capsys):
    env = reach(render_mode="human")
    env.reset(seed=0)
    env.step(np.zeros(22))
    words = capsys.readouterr()
    url = words.err.split()[-1]
    assert words.out == "" and words.err.startswith(f"{REACH}: http://127.0.0.1:")
    with urllib.request.urlopen(url) as answer:
        assert answer.status == 200
    env.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=5.0)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or ""
FLAGS = (
    "--headless=new --no-sandbox --use-angle=swiftshader --enable-unsafe-swiftshader --disable-background-networking "
    "--no-first-run --disable-component-update --disable-sync --hide-scrollbars --window-size=900,700 --timeout=16000 "
    "--virtual-time-budget=20000"
)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs chromium")
def test_a_browser_shows_the_hand_with_cables_in_colour(tmp_path):
    from PIL import Image

    env = reach()
    env.reset(seed=0)
    live = Live(env)
    for _ in range(12):
        env.step(np.ones(22))
        live.show({})
    picture = tmp_path / "page.png"
    subprocess.run([CHROMIUM, *FLAGS.split(), f"--screenshot={picture}", live.url], capture_output=True, timeout=120)
    live.close()
    env.close()
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)[:, :560]  # left of the panel
    pixels = pixels[200:]  # below a note about slow graphics
    red = (pixels[..., 0] > 120) & (pixels[..., 1] < 60) & (pixels[..., 2] < 60)
    blue_green = (pixels[..., 2] > 90) & (pixels[..., 0] < pixels[..., 2] - 30)
    assert red.sum() > 50 and blue_green.sum() > 50
