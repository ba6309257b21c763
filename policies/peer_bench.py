"""A peer of `robot.onboard.bench`: the same network by torch, as stacks that keep torch on the robot run it: eagerly, with its default threads.

`python -m policies.peer_bench mlp torch 50 10` prints one `Cost` as JSON. Kept apart because a robot's process never holds torch.
"""

import json
import sys
import time

import numpy as np
import torch
from torch import nn

OBSERVATIONS, ACTIONS, CELLS = 98, 29, 128  # as robot.onboard.bench_nets
HIDDEN = (512, 256, 128)
WARM_UP_CALLS = 100


class Gru(nn.Module):
    """A GRU cell and a head; the state is carried by the module, as those stacks do."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(OBSERVATIONS, CELLS)
        self.head = nn.Sequential(nn.Linear(CELLS, CELLS), nn.ELU(), nn.Linear(CELLS, ACTIONS))

    def forward(self, observation: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        state = self.cell(observation, state)
        return self.head(state), state


def mlp() -> nn.Sequential:
    layers: list[nn.Module] = []
    width = OBSERVATIONS
    for size in HIDDEN:
        layers += [nn.Linear(width, size), nn.ELU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, ACTIONS))


def main() -> None:
    net, mode, rate_hz, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    observation, state = torch.zeros(1, OBSERVATIONS), torch.zeros(1, CELLS)
    inputs = (observation, state) if net == "gru" else (observation,)
    module = (Gru() if net == "gru" else mlp()).eval()
    count, period_s = max(1, round(rate_hz * seconds)), 1.0 / rate_hz
    took_ns = np.zeros(count, dtype=np.int64)
    with torch.inference_mode():
        for _ in range(WARM_UP_CALLS):
            module(*inputs)
        start_s, start_cpu_s = time.monotonic(), time.process_time()
        for k in range(count):
            time.sleep(max(0.0, start_s + (k + 1) * period_s - time.monotonic()))
            before_ns = time.perf_counter_ns()
            found = module(*inputs)
            if net == "gru":
                inputs = (observation, found[1])
            (found[0] if net == "gru" else found).numpy()
            took_ns[k] = time.perf_counter_ns() - before_ns
    share = (time.process_time() - start_cpu_s) / (time.monotonic() - start_s)
    p50, p99, p999 = (np.quantile(took_ns, [0.5, 0.99, 0.999]) * 1e-3).tolist()
    cost = {"mode": mode, "p50_us": p50, "p99_us": p99, "p999_us": p999, "cpu_share": share}
    print(json.dumps({**cost, "max_us": float(took_ns.max()) * 1e-3, "deadlines": count}))


if __name__ == "__main__":
    main()
