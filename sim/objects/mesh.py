"""A user's own object: a mesh file becomes a body of convex pieces. Needs trimesh and coacd, both of the `sim` extra."""

from pathlib import Path

import numpy as np

from robot.description.parts import require
from robot.errors import FlexorError
from sim.bodies import Body, Hull

LARGEST_M = 2.0  # beyond what a hand or two arms hold: the file is in millimetres, most likely
SMALLEST_M = 0.001
PIECES = 32
CONCAVITY = 0.05  # coacd's own default: the share of the size by which a piece may differ from its hull


class MeshError(FlexorError, ValueError):
    """A mesh that cannot be a solid; the message says why and what to do."""


def load_mesh(
    path: Path | str,
    *,
    mass_kg: float,
    friction: float = 0.5,
    scale: float = 1.0,
    pieces: int = PIECES,
    concavity: float = CONCAVITY,
) -> Body:
    """A body from a mesh file: what trimesh reads, without downloads (STL, OBJ, PLY, OFF, GLB).

    The frame is moved to the centre of mass of the solid; the inertia is the solid's own, at uniform density.

    Args:
        path: The file.
        mass_kg: Mass of the thing.
        friction: As `Body.friction`.
        scale: What the file's unit is in metres: 0.001 for millimetres.
        pieces: At most so many convex pieces.
        concavity: How exact the pieces are, 0.01 (many) to 1 (one hull).

    Raises:
        MeshError: No such file, nothing in it, an open or inverted surface, or a size that no hand meets.
    """
    import trimesh

    path = Path(path)
    require(pieces >= 1, "load_mesh", "pieces must be >= 1", pieces)
    require(0.01 <= concavity <= 1.0, "load_mesh", "concavity must be 0.01..1", concavity)
    require(scale > 0.0, "load_mesh", "scale must be > 0", scale)
    if not path.is_file():
        raise MeshError(f"{path}: no such file; give the path of an STL, OBJ, PLY, OFF or GLB file")
    try:
        mesh = trimesh.load_mesh(path, process=True)
    except Exception as error:  # trimesh's readers raise whatever their parsers raise
        raise MeshError(f"{path}: cannot be read as a mesh ({type(error).__name__}: {error})") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) < 4:
        raise MeshError(f"{path}: holds no solid (needs at least 4 triangles); export one mesh of triangles")
    mesh.apply_scale(scale)
    _check(mesh, path)
    centre, moments = np.asarray(mesh.center_mass), np.asarray(mesh.moment_inertia) / float(mesh.volume)
    mesh.apply_translation(-centre)
    hulls = _decomposed(mesh, pieces, concavity)
    principal = np.diag(moments) * mass_kg
    # A lopsided solid has no diagonal inertia in the frame of its file: then it is computed from the pieces, axes and all.
    lopsided = bool(np.abs(moments - np.diag(np.diag(moments))).max() > 0.01 * moments.max())
    return Body(
        name=path.stem,
        shapes=tuple(hulls),
        mass_kg=mass_kg,
        friction=friction,
        com_m=(0.0, 0.0, 0.0),
        inertia_kg_m2=None if lopsided else (float(principal[0]), float(principal[1]), float(principal[2])),
    )


def _check(mesh, path: Path) -> None:
    if not np.isfinite(mesh.vertices).all():
        raise MeshError(f"{path}: vertices must be finite")
    if not mesh.is_watertight:
        edges, count = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
        open_edges = int((count != 2).sum())
        raise MeshError(
            f"{path}: not watertight: {open_edges} of {len(edges)} edges do not belong to exactly two triangles, so it has no "
            "inside and no mass; close the holes in the program that made it and export again"
        )
    if not mesh.is_winding_consistent or mesh.volume <= 0.0:
        raise MeshError(
            f"{path}: triangles are turned inconsistently or inside out (volume {float(mesh.volume):.3g} m3); "
            "recompute its normals outwards"
        )
    size = float(np.max(mesh.extents))
    if not SMALLEST_M <= size <= LARGEST_M:
        raise MeshError(
            f"{path}: {size:.3g} m long, expected {SMALLEST_M} to {LARGEST_M} m; give scale=0.001 if it is in millimetres"
        )


def _decomposed(mesh, pieces: int, concavity: float) -> list[Hull]:
    """Convex pieces that together fill the mesh."""
    if _convex(mesh):
        return [Hull.of(np.asarray(mesh.vertices), np.asarray(mesh.faces))]
    import coacd
    import trimesh

    coacd.set_log_level("error")
    parts = coacd.run_coacd(coacd.Mesh(mesh.vertices, mesh.faces), threshold=concavity, max_convex_hull=pieces, seed=0)
    hulls = [trimesh.Trimesh(vertices, faces) for vertices, faces in parts]
    return [Hull.of(np.asarray(hull.vertices), np.asarray(hull.faces)) for hull in hulls if hull.volume > 0.0]


def _convex(mesh) -> bool:
    """No corner lies in front of any triangle; trimesh's own answer would need scipy."""
    vertices, corners = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    ahead = normal @ vertices.T - np.einsum("ki,ki->k", normal, corners[:, 0])[:, None]
    return bool(ahead.max() < 1e-6 * np.ptp(vertices, axis=0).max())
