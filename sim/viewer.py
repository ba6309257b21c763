"""A live page of a simulation in the browser: the hand, its tendons coloured by tension, contact forces, and time on a slider.

    live = Live(env.unwrapped)
    print(live.url)
    live.show()             # after every reset and step

The page is served on the loopback interface; whoever can open it can only look.
"""

import io
import threading
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import viser

from robot.description.model import RobotModel
from robot.description.rotation import quat_xyzw
from robot.description.urdf import COLORS, link_color
from robot.errors import FlexorError
from sim.camera import GOAL_COLORS, GOAL_RADIUS_M
from sim.scene import TILE_M, LinkPoses, TendonPaths, body_meshes, mesh, tiles
from sim.world import World

FULL_TENSION_N = 60.0  # red from here on
SLACK = (60, 60, 66)
SCALE = np.array(
    [(0, 60, 255), (0, 190, 120), (255, 190, 0), (230, 0, 0)], dtype=np.float64
)  # evenly over the root of the tension
FLOOR = ((38, 40, 45), (52, 55, 61))
BACKGROUND = 5  # grey level; the colours of the cables read best on dark
ARROW_M_N = 0.0015  # length of a force arrow per newton
MAX_ARROW_M = 0.08
KEPT = 15_000  # snapshots; ten minutes at 25 Hz


class ViewerError(FlexorError):
    """The page cannot be served."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """What the page shows of one moment.

    Attributes:
        time_s: Since the reset.
        q_rad: Joint angles, shape (n_joints,).
        tension_n: Of every cable, shape (2 n_tendons,).
        contacts: Points and forces on the robot in the world, shape (k, 6) [m, N].
        goals_m: Points in the palm frame, shape (n, 3).
        base_pose: x y z, qx qy qz qw of a floating base, shape (7,); None for a fixed one.
        body_poses: The same of every body of the world, shape (n, 7).
        world: What is there; what the page was made with when None.
        figures: Anything worth a line of text.
    """

    time_s: float
    q_rad: np.ndarray
    tension_n: np.ndarray
    contacts: np.ndarray
    goals_m: np.ndarray
    base_pose: np.ndarray | None = None
    body_poses: np.ndarray = field(default_factory=lambda: np.zeros((0, 7)))
    world: World | None = None
    figures: dict[str, float] = field(default_factory=dict)


def snapshot(env: Any, figures: dict[str, float] | None = None) -> Snapshot:
    """An unwrapped `RobotEnv` as it stands."""
    state, backend, truth = env.state, env.backend, env.world_state
    base_pose = np.concatenate([truth.base_position_m, truth.base_quat_xyzw]) if env.model.floating else None
    return Snapshot(
        time_s=state.time_s,
        q_rad=state.q_rad.copy(),
        tension_n=backend.tension_n,
        contacts=backend.contacts().arrows,
        goals_m=env.goal_points_m(),
        base_pose=base_pose,
        body_poses=truth.body_pose,
        world=backend.world,
        figures=dict(figures or {}),
    )


def tension_color(tension_n: np.ndarray) -> np.ndarray:
    """Grey when slack, then blue, green, yellow, red; shape (n,) -> (n, 3) uint8."""
    share = np.sqrt(np.clip(tension_n / FULL_TENSION_N, 0.0, 1.0)) * (len(SCALE) - 1)
    color = np.stack([np.interp(share, np.arange(len(SCALE)), channel) for channel in SCALE.T], axis=-1)
    return np.where(tension_n[:, None] > 0.0, color, SLACK).astype(np.uint8)


def rgb(color: Sequence[float]) -> tuple[int, int, int]:
    """A colour of 0..1 as bytes; an alpha is left out."""
    return round(255 * color[0]), round(255 * color[1]), round(255 * color[2])


class Viewer:
    """The page and what it has seen.

    Args:
        model: The robot.
        world: What is around it; nothing when None.
        host: Interface to serve on.
        port: Port; 0 for any that is free.
    """

    def __init__(
        self, model: RobotModel, world: World | None = None, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self._poses, self._paths = LinkPoses(model), TendonPaths(model)
        self._palm = self._poses.names.index("palm") if "palm" in self._poses.names else 0
        self._seen: list[Snapshot] = []
        self._lock = threading.RLock()  # the page's callbacks come from threads of the server
        with redirect_stdout(io.StringIO()):  # a banner
            self._server = viser.ViserServer(host=host, port=port or _free_port(host), label="flexor", verbose=False)
        self.url = f"http://{host}:{self._server.get_port()}"
        self._world, self._things = World(), []
        self._build(model, world or World())

    def _build(self, model: RobotModel, world: World) -> None:
        scene, tips = self._server.scene, {tip.link for tip in model.tips}
        # All that is shown hangs on this, which moves against a floating base: who walks stays in the picture.
        self._all = scene.add_frame("/all", show_axes=False)
        scene.set_up_direction("+z")
        scene.set_background_image(np.full((2, 2, 3), BACKGROUND, dtype=np.uint8))
        self._server.initial_camera.position = (2.2, 1.6, 1.5) if model.floating else (0.2, 0.12, 0.3)
        self._server.initial_camera.look_at = (0.0, 0.0, 0.8) if model.floating else (-0.02, 0.27, 0.02)
        self._furnish(world)
        self._floor = scene.add_frame("/all/floor", show_axes=False) if world.ground.kind != "none" else None
        for i, (vertices, faces) in enumerate(tiles(0.0, 0.0) if self._floor else ()):
            scene.add_mesh_simple(f"/all/floor/{i}", vertices, faces, color=FLOOR[i], flat_shading=True, side="double")
        self._frames = []
        for link in model.links:
            color = rgb([float(c) for c in COLORS[link_color(link.name, tips)].split()])
            opacity = 0.18 if link.name.startswith(("forearm", "elbow")) else 0.5
            self._frames.append(scene.add_frame(f"/all/hand/{link.name}", show_axes=False))
            for i, geom in enumerate(link.geoms):
                vertices, faces = mesh(geom)
                scene.add_mesh_simple(
                    f"/all/hand/{link.name}/{i}",
                    vertices,
                    faces,
                    color=color,
                    opacity=opacity,
                    flat_shading=geom.shape == "box",
                )
        nowhere = np.zeros((1, 2, 3))
        n = max(len(self._paths.cable_of_segment), 1)
        slack = np.full((n, 2, 3), SLACK, dtype=np.uint8)
        self._tendons = scene.add_line_segments("/all/tendons", np.zeros((n, 2, 3)), slack, thickness=0.002)
        self._forces = scene.add_arrows(
            "/all/forces",
            nowhere,
            (255, 70, 200),
            shaft_radius=0.0015,
            head_radius=0.004,
            head_length=0.008,
            visible=False,
        )
        self._goals: list[Any] = []
        gui = self._server.gui
        self._time = gui.add_slider("time", 0, 1, 1, 0, hint="steps seen; pull to go back")
        self._live = gui.add_checkbox("live", True, hint="follow the simulation")
        self._text = gui.add_markdown("")
        self._time.on_update(self._pulled)

    def _furnish(self, world: World) -> None:
        """Put the bodies of a world there instead of those that are."""
        for thing in self._things:
            thing.remove()
        scene, self._world = self._server.scene, world
        self._things = [scene.add_frame(f"/all/world/{body.name}", show_axes=False) for body in world.bodies]
        for body in world.bodies:
            for i, (vertices, faces) in enumerate(body_meshes(body)):
                scene.add_mesh_simple(
                    f"/all/world/{body.name}/{i}", vertices, faces, color=rgb(body.color), flat_shading=True
                )

    def _pulled(self, event: Any) -> None:
        if event.client is None:  # it was us
            return
        with self._lock:
            self._live.value = False
            if self._seen:
                self._draw(self._seen[min(int(self._time.value), len(self._seen) - 1)])

    def add(self, seen: Snapshot) -> None:
        """Show a moment and remember it for the slider."""
        with self._lock:
            if len(self._seen) < KEPT:
                self._seen.append(seen)
            last = max(len(self._seen) - 1, 1)
            if last > self._time.max:
                self._time.max = 2 * last if last > 50 else 100
            if self._live.value:
                self._time.value = last
                self._draw(seen)

    def _draw(self, seen: Snapshot) -> None:
        rotation, origin = self._poses.at(seen.q_rad, seen.base_pose)
        with self._server.atomic():
            if seen.world is not None and seen.world is not self._world:
                self._furnish(seen.world)
            if seen.base_pose is not None:
                self._all.position = (-float(seen.base_pose[0]), -float(seen.base_pose[1]), 0.0)
            for frame, matrix, place in zip(self._frames, rotation, origin):
                x, y, z, w = quat_xyzw(matrix)
                frame.wxyz, frame.position = (w, x, y, z), tuple(place)
            for frame, pose in zip(self._things, seen.body_poses):
                x, y, z, w = pose[3:].tolist()
                frame.wxyz, frame.position = (w, x, y, z), tuple(pose[:3])
            if self._floor is not None and seen.base_pose is not None:
                x, y = (2.0 * TILE_M * np.round(seen.base_pose[:2] / (2.0 * TILE_M))).tolist()
                self._floor.position = (x, y, 0.0)
            if len(self._paths.cable_of_segment):
                color = tension_color(seen.tension_n)[self._paths.cable_of_segment]
                self._tendons.points = self._paths.segments(rotation, origin).astype(np.float32)
                self._tendons.colors = np.repeat(color[:, None], 2, axis=1)
            self._forces.visible = len(seen.contacts) > 0
            if len(seen.contacts):
                self._forces.points = arrows(seen.contacts).astype(np.float32)
            self._place_goals(seen.goals_m @ rotation[self._palm].T + origin[self._palm])
        lines = [f"**{seen.time_s:.2f} s**"] + [f"{name}: {value:.3g}" for name, value in seen.figures.items()]
        strongest = float(np.max(seen.tension_n, initial=0.0))
        lines.append(f"highest tension: {strongest:.1f} N (red from {FULL_TENSION_N:g} N, grey: slack)")
        lines.append(f"contacts: {len(seen.contacts)}")
        self._text.content = "  \n".join(lines)

    def _place_goals(self, goals_m: np.ndarray) -> None:
        while len(self._goals) < len(goals_m):
            color = rgb(GOAL_COLORS[len(self._goals) % len(GOAL_COLORS)])
            self._goals.append(self._server.scene.add_icosphere(f"/all/goals/{len(self._goals)}", GOAL_RADIUS_M, color))
        for ball, place in zip(self._goals, goals_m):
            ball.position = tuple(place)

    def close(self) -> None:
        """Stop serving."""
        with redirect_stdout(io.StringIO()):  # a word of farewell
            self._server.stop()


class Live:
    """A page that follows an unwrapped `RobotEnv` at the speed of the real robot. Arguments as `Viewer`."""

    def __init__(self, env: Any, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self._env = env
        self.viewer = Viewer(env.model, env.backend.world, host=host, port=port)
        self.url = self.viewer.url
        self._due_s = time.monotonic()

    def show(self, figures: dict[str, float] | None = None) -> None:
        """Wait until it is time for this moment, and show it."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s + self._env.dt, now_s)  # one that is late is not made up for
        time.sleep(self._due_s - now_s)
        self.viewer.add(snapshot(self._env, figures))

    def close(self) -> None:
        self.viewer.close()


def arrows(contacts: np.ndarray) -> np.ndarray:
    """Start and end of each force's arrow, shape (k, 6) -> (k, 2, 3) [m]; very large forces are cut."""
    point, force = contacts[:, :3], contacts[:, 3:]
    length = ARROW_M_N * np.linalg.norm(force, axis=1, keepdims=True)
    return np.stack(
        [point, point + ARROW_M_N * force * np.minimum(1.0, MAX_ARROW_M / np.maximum(length, 1e-9))], axis=1
    )


def _free_port(host: str) -> int:
    import socket

    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
            return probe.getsockname()[1]
    except OSError as error:
        raise ViewerError(f"cannot serve on {host}: {error.strerror}; do: take an address of this machine") from error
