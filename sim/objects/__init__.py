"""Things to take in hand: a catalogue of primitives with published sizes and masses, and a user's own meshes."""

from sim.objects.catalogue import CATALOGUE, Thing, find
from sim.objects.mesh import MeshError, load_mesh

__all__ = ["CATALOGUE", "MeshError", "Thing", "find", "load_mesh"]
