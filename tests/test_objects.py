"""Objects: what the catalogue holds can exist, and a user's mesh becomes a body or is refused by name."""

import numpy as np
import pytest
import trimesh

from robot.errors import UnknownNameError
from sim.bodies import volume_m3
from sim.objects import CATALOGUE, MeshError, find, load_mesh


def test_every_object_of_the_catalogue_has_a_density_of_something_and_an_inertia_of_its_size():
    for name, thing in CATALOGUE.items():
        body = thing.body
        density = body.mass_kg / sum(volume_m3(shape) for shape in body.shapes)
        assert 15.0 < density < (25000.0 if name == "loaded_bar" else 8000.0), f"{name}: {density:.0f} kg/m3"
        _, _, moments = body.inertial
        gyration = np.sqrt(moments / body.mass_kg)
        assert (gyration < 0.12).all() and (gyration > 0.001).all(), f"{name}: {gyration}"
        assert thing.source and thing.about
    assert len(CATALOGUE) >= 50


def test_an_unknown_object_lists_the_known_ones():
    with pytest.raises(UnknownNameError, match="soup_can"):
        find("soup_cam")


def test_a_box_as_a_mesh_weighs_and_turns_like_the_box(tmp_path):
    edges = np.array([0.10, 0.05, 0.02])
    path = tmp_path / "box.stl"
    trimesh.creation.box(edges).apply_translation([0.3, 0.1, 0.0]).export(path)
    body = load_mesh(path, mass_kg=0.2, friction=0.7)
    com, _, moments = body.inertial
    x, y, z = edges**2
    assert np.allclose(com, 0.0, atol=1e-9)
    assert np.allclose(moments, 0.2 / 12.0 * np.array([y + z, x + z, x + y]), rtol=1e-5)
    assert len(body.shapes) == 1 and body.friction == 0.7


def test_a_hollow_mesh_becomes_several_convex_pieces_that_leave_its_hole_open(tmp_path):
    path = tmp_path / "ring.stl"
    trimesh.creation.torus(0.03, 0.01, major_sections=16, minor_sections=8).export(path)
    body = load_mesh(path, mass_kg=0.1, pieces=12, concavity=0.1)
    pieces = sum(volume_m3(shape) for shape in body.shapes)
    assert 3 <= len(body.shapes) <= 12
    assert pieces == pytest.approx(2.0 * np.pi**2 * 0.03 * 0.01**2, rel=0.35)


def refuse(tmp_path, mesh, words, **settings):
    path = tmp_path / "thing.stl"
    mesh.export(path)
    with pytest.raises(MeshError, match=words):
        load_mesh(path, mass_kg=0.1, **settings)


def test_meshes_that_are_no_solids_are_refused_with_the_reason(tmp_path):
    opened = trimesh.creation.box((0.1, 0.1, 0.1))
    opened.update_faces(np.arange(len(opened.faces)) != 3)
    refuse(tmp_path, opened, r"not watertight: 3 of \d+ edges")
    inverted = trimesh.creation.box((0.1, 0.1, 0.1))
    inverted.invert()
    refuse(tmp_path, inverted, "inside out")
    refuse(tmp_path, trimesh.creation.box((100.0, 50.0, 20.0)), r"scale=0\.001")
    load_path = tmp_path / "thing.stl"
    load_path.write_bytes(b"solid nonsense\x00\xff" * 9)
    with pytest.raises(MeshError, match=r"thing\.stl"):
        load_mesh(load_path, mass_kg=0.1)
    with pytest.raises(MeshError, match="no such file"):
        load_mesh(tmp_path / "none.stl", mass_kg=0.1)
