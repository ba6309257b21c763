"""Latency samples without growth, and what is said about them."""

from dataclasses import asdict, dataclass

import numpy as np

CAPACITY = 65_536  # 22 minutes at 50 Hz; the oldest are then overwritten


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """Of a set of times [us]; all None when there are none."""

    p50_us: float | None = None
    p99_us: float | None = None
    p999_us: float | None = None
    max_us: float | None = None
    samples: int = 0

    def as_dict(self) -> dict[str, float | int | None]:
        return asdict(self)

    def __str__(self) -> str:
        if not self.samples:
            return "no samples"
        return f"p50 {self.p50_us:.0f}, p99 {self.p99_us:.0f}, p99.9 {self.p999_us:.0f}, max {self.max_us:.0f} us"


class Ring:
    """The last `capacity` times, in nanoseconds; adding one allocates nothing."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._ns = np.zeros(capacity, dtype=np.int64)
        self.count = 0  # of all times that were added

    @property
    def address(self) -> int:
        """Where the times are, for compiled code that adds some; it must count them in `count`."""
        return self._ns.ctypes.data

    @property
    def room(self) -> int:
        return len(self._ns)

    def add(self, ns: int) -> None:
        self._ns[self.count % len(self._ns)] = ns
        self.count += 1

    def __len__(self) -> int:
        return min(self.count, len(self._ns))

    def quantiles(self) -> Quantiles:
        kept = self._ns[: len(self)]
        if not len(kept):
            return Quantiles()
        p50, p99, p999 = (np.quantile(kept, [0.5, 0.99, 0.999]) * 1e-3).tolist()
        return Quantiles(p50_us=p50, p99_us=p99, p999_us=p999, max_us=float(kept.max()) * 1e-3, samples=len(kept))
