"""One run of a peer's environment: `python benchmarks/peers.py ID SECONDS`, in the environment of `make bench-peers`.

Prints control steps and simulated seconds per wall second under random actions, resets included, as JSON. It imports nothing of
this project: Gymnasium-Robotics needs another MuJoCo (`mujoco<3.4`).
"""

import json
import sys
import time

import gymnasium
import gymnasium_robotics


def main(env_id: str, seconds: float) -> None:
    gymnasium.register_envs(gymnasium_robotics)
    env = gymnasium.make(env_id)
    env.action_space.seed(0)
    env.reset(seed=0)
    steps, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        steps += 1
        if terminated or truncated:
            env.reset()
    rate = steps / (time.perf_counter() - started)
    print(json.dumps({"steps_per_s": rate, "simulated_s_per_s": rate * env.unwrapped.dt}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
