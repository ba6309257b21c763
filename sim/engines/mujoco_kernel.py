"""Substeps of the transmission and of MuJoCo in turn in one compiled call, with no interpreter in between.

MuJoCo's own `mj_step` is called by its address. An error inside it ends the process (from Python it would be an exception); MuJoCo
has them for a stack that overflows and for arguments that cannot be, not for what a simulation comes to.
"""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false
# numba and llvmlite ship no stubs.

import ctypes
from pathlib import Path

import mujoco
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from sim.engines.truth_kernel import turn
from sim.transmission_kernel import substep


def _address_of_mj_step() -> int:
    """Where `mj_step` is, in the very library that MuJoCo's Python package uses."""
    folder = Path(mujoco.__file__).parent
    (library,) = [path for pattern in ("libmujoco*", "mujoco.dll") for path in folder.glob(pattern)]
    address = ctypes.cast(ctypes.CDLL(str(library)).mj_step, ctypes.c_void_p).value
    assert address is not None
    return address


MJ_STEP = _address_of_mj_step()


@intrinsic
def _call(typingctx, function, model, data):
    """`function(model, data)`, all three given as addresses."""

    def code(context, builder, signature, arguments):
        pointer = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [pointer, pointer])
        address, *others = arguments
        builder.call(
            builder.inttoptr(address, function.as_pointer()), [builder.inttoptr(one, pointer) for one in others]
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), code


@njit(
    "void(int64, int64, int64, int64, float64[::1], int64[::1], float64[::1], float64[::1], float64[::1], int64[::1], int64[::1])",
    cache=True,
)
def advance(mj_step, model, data, substeps, x, ix, qpos, qvel, torque, at, dof):  # pragma: no cover - compiled
    """Step transmission and engine.

    Args:
        mj_step, model, data: Addresses.
        substeps: How many.
        x, ix: The transmission's blocks, see `TransmissionKernel.blocks`.
        qpos, qvel, torque: MuJoCo's own arrays, not copies; torque is `qfrc_applied`.
        at, dof: Where the robot's joints are in them.
    """
    m = ix[2]
    for _ in range(substeps):
        substep(x, ix)
        for j in range(m):
            torque[dof[j]] = x[1 + 2 * m + j]
        _call(mj_step, model, data)
        for j in range(m):
            x[1 + j] = qpos[at[j]]
            x[1 + m + j] = qvel[dof[j]]


@njit(
    "void(float64[::1], float64[::1], int64, int64[:,::1], int32[:,:], int32[:], float64[::1], int64[::1], b1, "
    "float64[::1], float64[:,::1], float64[:,::1], float64[::1])",
    cache=True,
)
def read(
    qpos, qvel, floating, free, geoms, first_row, edges, tip_of, pyramid, base, pose, twist, tips
):  # pragma: no cover - compiled
    """Write the truth after a step.

    Args:
        qpos, qvel: MuJoCo's own arrays.
        floating: 1 where the first joint is the robot's base.
        free: Of each free body its row, and where its joint is in qpos and qvel.
        geoms, first_row: Of each contact its two geoms, and its first row among the constraints.
        edges: Constraint forces.
        tip_of: 1 + tip of each geom, 0 where it is of none.
        pyramid: Whether a contact is a pyramid of four edges (condim 3), whose sum is the normal force, or a cone, whose first row is.
        base: Position, quaternion xyzw, velocity, and angular velocity in the world and in the base, shape (16,).
        pose, twist: Of the bodies, shapes (n, 7) and (n, 6); only rows of free ones are written.
        tips: Normal force on everything that is no tip, then on each tip.
    """
    if floating:
        x, y, z, w = qpos[4], qpos[5], qpos[6], qpos[3]
        base[0:3] = qpos[0:3]
        base[3], base[4], base[5], base[6] = x, y, z, w
        base[7:10] = qvel[0:3]
        base[10], base[11], base[12] = turn(x, y, z, w, qvel[3], qvel[4], qvel[5])
        base[13:16] = qvel[3:6]
    for k in range(free.shape[0]):
        i, at, dof = free[k, 0], free[k, 1], free[k, 2]
        x, y, z, w = qpos[at + 4], qpos[at + 5], qpos[at + 6], qpos[at + 3]
        pose[i, 0:3] = qpos[at : at + 3]
        pose[i, 3], pose[i, 4], pose[i, 5], pose[i, 6] = x, y, z, w
        twist[i, 0:3] = qvel[dof : dof + 3]
        twist[i, 3], twist[i, 4], twist[i, 5] = turn(x, y, z, w, qvel[dof + 3], qvel[dof + 4], qvel[dof + 5])
    tips[:] = 0.0
    for k in range(geoms.shape[0]):
        row = first_row[k]
        if row >= 0:  # -1 is a contact that carries nothing
            normal = edges[row]
            if pyramid:
                normal += edges[row + 1] + edges[row + 2] + edges[row + 3]
            tips[tip_of[geoms[k, 0]]] += normal
            tips[tip_of[geoms[k, 1]]] += normal


__all__ = ["MJ_STEP", "advance", "read"]
