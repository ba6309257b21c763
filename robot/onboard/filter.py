"""The safety filter of `robot.safety` in C: the same stages, the same bits, a fifth of the time. Checked against it before use."""

import ctypes
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from robot.onboard.compiled import FLAGS, CompiledParityError, CompilerError, load
from robot.safety import SANE, Filter, Filtered, Limits

# Contraction would fuse products and sums, and so round differently from numpy.
STRICT_FLAGS = tuple("-ffp-contract=off" if flag.startswith("-ffp-contract") else flag for flag in FLAGS)
PARITY_SAMPLES = 512

C = """
#include <stdint.h>
#define LIMIT(x, lo, hi) ((x) < (hi) ? ((x) > (lo) ? (x) : (lo)) : ((hi) > (lo) ? (hi) : (lo)))
static double least(double a, double b) { return a < b ? a : b; }
static double most(double a, double b) { return a > b ? a : b; }

/* io: rows target, previous, q, qd, out. bound: rows lower, upper, slew, step, torque, lag, and the same two with touch. Returns how many numbers are
   beyond what can be a joint's; nothing is written to `out` then. */
int64_t filter(double *io, const double *bound, int64_t *count, int64_t n, double share, double ahead)
{
    const double *t = io, *p = io + n, *q = io + 2 * n, *qd = io + 3 * n;
    const double *lower = bound, *upper = bound + n, *slew = bound + 2 * n, *step = bound + 3 * n;
    const double *torque = bound + 4 * n, *lag = bound + 5 * n;
    const double *nearest = bound + 6 * n, *farthest = bound + 7 * n;
    double *out = io + 4 * n;
    int64_t wild = 0;
    for (int64_t i = 0; i < 4 * n; i++) wild += !(io[i] * io[i] < SANE);
    if (wild) return wild;
    for (int64_t k = 0; k < 5; k++) count[k] = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x0 = t[i];
        const double x1 = LIMIT(x0, p[i] - slew[i], p[i] + slew[i]);
        const double x2 = LIMIT(x1, lower[i], upper[i]);
        const double lowest = p[i] - step[i], highest = p[i] + step[i];
        const double x3 = LIMIT(x2, lowest, highest);
        const double low = least(lower[i], highest), high = most(upper[i], lowest);
        const double centre = lag[i] * qd[i] + q[i];
        const double x4 = LIMIT(x3, centre - torque[i], centre + torque[i]);
        double floor = low, ceiling = high;
        if (share < 1.0) {
            floor = most(low, least(p[i] + share * (lower[i] - p[i]), highest));
            ceiling = least(high, most(p[i] + share * (upper[i] - p[i]), lowest));
        }
        double x5 = LIMIT(x4, floor, ceiling);
        const double next = qd[i] * ahead + q[i], here = LIMIT(q[i], low, high);
        if (next > farthest[i]) x5 = least(x5, here);
        if (next < nearest[i]) x5 = most(x5, here);
        count[0] += x1 != x0; count[1] += x2 != x1; count[2] += x3 != x2; count[3] += x4 != x3; count[4] += x5 != x4;
        out[i] = x5;
    }
    return 0;
}
""".replace("SANE", repr(SANE))


class TargetFilter(Protocol):
    """What the control loop needs of a filter; see `robot.safety.Filter`."""

    @property
    def limits(self) -> Limits: ...

    def __call__(
        self, target_rad: np.ndarray, previous_rad: np.ndarray, q_rad: np.ndarray, qd_rad_s: np.ndarray
    ) -> Filtered: ...


class CompiledFilter:
    """`robot.safety.Filter` for one row, compiled. What is not sane goes to the one in numpy, which names it.

    Raises:
        CompilerError: There is no compiler here.
        CompiledParityError: It does not give numpy's bits.
    """

    def __init__(self, limits: Limits, folder: Path | None = None) -> None:
        self.limits, self._plain = limits, Filter(limits)
        n = len(limits.joint_names)
        self._call = load(C, folder, STRICT_FLAGS).filter
        real, whole, pointer = ctypes.c_double, ctypes.c_int64, ctypes.c_void_p
        self._call.argtypes, self._call.restype = (pointer, pointer, pointer, whole, real, real), whole
        self._bound = np.ascontiguousarray(
            [
                limits.lower_rad,
                limits.upper_rad,
                np.minimum(limits.slew_rad, limits.max_step_rad),
                limits.max_step_rad,
                limits.torque_rad,
                limits.damping_s,
                limits.lower_rad - limits.touch_rad_s / limits.alpha_1_s,
                limits.upper_rad + limits.touch_rad_s / limits.alpha_1_s,
            ]
        )
        self._io, self._count = np.zeros((5, n)), np.zeros(5, dtype=np.int64)
        self._target, self._previous, self._q, self._qd, self._out = self._io
        share = min(1.0, limits.alpha_1_s * limits.dt_s)
        self.rates = share, 1.0 / limits.alpha_1_s
        addresses = (self._io.ctypes.data, self._bound.ctypes.data, self._count.ctypes.data)
        self._arguments = (
            *(pointer(address) for address in addresses),
            whole(n),
            real(share),
            real(1.0 / limits.alpha_1_s),
        )
        self._check_parity()

    @property
    def pointers(self) -> tuple[int | None, int, int]:
        """The function, its rows (target, previous, q, qd, out) and its bounds; for compiled code that calls it (`tick.c`)."""
        return ctypes.cast(self._call, ctypes.c_void_p).value, self._io.ctypes.data, self._bound.ctypes.data

    @property
    def previous(self) -> np.ndarray:
        """The row of the target sent last, as that code keeps it."""
        return self._previous

    @property
    def target(self) -> np.ndarray:
        """The row of the target that may be sent, as that code leaves it."""
        return self._out

    def __call__(
        self, target_rad: np.ndarray, previous_rad: np.ndarray, q_rad: np.ndarray, qd_rad_s: np.ndarray
    ) -> Filtered:
        self._target[:], self._previous[:], self._q[:], self._qd[:] = target_rad, previous_rad, q_rad, qd_rad_s
        if self._call(*self._arguments):
            return self._plain(target_rad, previous_rad, q_rad, qd_rad_s)
        return Filtered(self._out.copy(), *self._count.tolist())

    def _check_parity(self) -> None:
        rng, limits = np.random.default_rng(0), self.limits
        for k in range(PARITY_SAMPLES):
            row = rng.uniform(limits.lower_rad - 0.2, limits.upper_rad + 0.2, (4, len(limits.joint_names)))
            row[0] = row[1] + 10.0 ** rng.integers(-4, 2) * (row[0] - row[1])
            row[3] *= 10.0
            want, got = self._plain(*row), self(*row)
            if want[1:] != got[1:] or not np.array_equal(want.target_rad, got.target_rad):
                raise CompiledParityError(f"the compiled filter and the one in numpy differ on sample {k}")


def make_filter(limits: Limits) -> TargetFilter:
    """The fastest filter that can be had here."""
    with suppress(CompilerError, CompiledParityError):  # numpy filters just as well, only slower
        return CompiledFilter(limits)
    return Filter(limits)
