"""Statistics of columns as LeRobot keeps them: per episode, and put together over all. Quantiles over all are means weighted by length, as there."""

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]


def of_rows(rows: np.ndarray) -> Stats:
    """Of one episode's column.

    Args:
        rows: shape (n,) or (n, k). What is no finite number counts as 0: JSON has none, and one such reward must not cost the export.

    Returns:
        min, max, mean, std, q01 ... q99, each of shape (k,), and count of shape (1,).
    """
    table = np.nan_to_num(rows.reshape(len(rows), -1).astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    quantiles = np.quantile(table, list(QUANTILES.values()), axis=0)
    return {
        "min": table.min(axis=0),
        "max": table.max(axis=0),
        "mean": table.mean(axis=0),
        "std": table.std(axis=0),
        "count": np.array([len(table)]),
        **dict(zip(QUANTILES, quantiles)),
    }


class Together:
    """Statistics of many episodes, one after the other. Mean and variance by the parallel rule of Chan, Golub and LeVeque (1979)."""

    def __init__(self) -> None:
        self._sum: Stats | None = None

    def add(self, new: Stats) -> None:
        old = self._sum
        if old is None:
            self._sum = dict(new)
            return
        n_old, n_new = float(old["count"][0]), float(new["count"][0])
        n = n_old + n_new
        delta = new["mean"] - old["mean"]
        variance = (n_old * old["std"] ** 2 + n_new * new["std"] ** 2 + delta**2 * n_old * n_new / n) / n
        weighted = {q: (old[q] * n_old + new[q] * n_new) / n for q in QUANTILES}
        self._sum = {
            "min": np.minimum(old["min"], new["min"]),
            "max": np.maximum(old["max"], new["max"]),
            "mean": old["mean"] + delta * n_new / n,
            "std": np.sqrt(variance),
            "count": old["count"] + new["count"],
            **weighted,
        }

    def plain(self) -> dict[str, Any]:
        return {} if self._sum is None else {name: value.tolist() for name, value in self._sum.items()}
