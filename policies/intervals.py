"""95 % confidence intervals of a rate and of a mean."""

from math import sqrt

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
# Two-sided 95 % quantiles of Student's t where the expansion below is off by more than 1e-3.
T95_SMALL = {1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 5: 2.570582}

Interval = tuple[float, float]


def wilson(successes: int, n: int) -> Interval:
    """Wilson's score interval of a success rate; right even at 0 and n of n, where a normal interval has no width.

    Raises:
        ValueError: n < 1, or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    p, zz = successes / n, Z95 * Z95
    centre = (p + zz / (2.0 * n)) / (1.0 + zz / n)
    half = Z95 / (1.0 + zz / n) * sqrt(p * (1.0 - p) / n + zz / (4.0 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def t95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t (Abramowitz & Stegun 26.7.5, three terms; a table up to 5 degrees of freedom)."""
    if freedom < 1:
        raise ValueError(f"degrees of freedom must be >= 1, got {freedom}")
    if freedom in T95_SMALL:
        return T95_SMALL[freedom]
    z = Z95
    first = (z**3 + z) / 4.0
    second = (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / 96.0
    third = (3.0 * z**7 + 19.0 * z**5 + 17.0 * z**3 - 15.0 * z) / 384.0
    return z + first / freedom + second / freedom**2 + third / freedom**3


def mean_interval(values: np.ndarray) -> tuple[float, Interval | None]:
    """The mean and its Student-t interval; no interval for a single value.

    Raises:
        ValueError: No values, or one that is not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected finite values, got {values[~np.isfinite(values)][:4].tolist() or 'none'}")
    mean = float(values.mean())
    if values.size == 1:
        return mean, None
    half = t95(values.size - 1) * float(values.std(ddof=1)) / sqrt(values.size)
    return mean, (mean - half, mean + half)
