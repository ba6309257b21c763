"""Substeps of the transmission and of MuJoCo in turn in one compiled call, with no interpreter in between.

MuJoCo's own `mj_step` is called by its address. An error inside it ends the process (from Python it would be an exception); MuJoCo
has them for a stack that overflows and for arguments that cannot be, not for what a simulation comes to.
"""

# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false
# numba and llvmlite ship no stubs.

import ctypes
from pathlib import Path

import mujoco
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

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


__all__ = ["MJ_STEP", "advance"]
