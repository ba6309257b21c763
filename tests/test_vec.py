"""The vector environment: the episodes of single ones, from workers that neither hang, nor leak, nor outlive their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO

import sim
from policies.adapters.rsl_rl import RslRlVecEnv
from policies.adapters.sb3 import SB3VecEnv
from robot.errors import NotFiniteError, UnknownNameError
from sim.env import ActionError
from sim.vec import WorkerError

REACH = "flexor/HandReach-v0"
N = 3
UP_S = 60.0  # a loaded machine may take a while; nothing here is a timing claim


@pytest.fixture(scope="module")
def envs():
    made = sim.make_vec(REACH, N, 2, engine="mujoco")
    yield made
    made.close()


def some_actions(steps, n=N):
    return np.random.default_rng(5).uniform(-1.0, 1.0, (steps, n, 22)).astype(np.float32)


def test_it_gives_the_episodes_of_single_environments_bit_for_bit(envs):
    single: list[Any] = [gymnasium.make(REACH, engine="mujoco") for _ in range(N)]
    expected = [env.reset(seed=40 + i)[0] for i, env in enumerate(single)]
    observation, _ = envs.reset(seed=40)
    np.testing.assert_array_equal(observation, expected)
    ended = 0
    for actions in some_actions(60):
        observation, reward, terminated, truncated, info = envs.step(actions)
        for i, env in enumerate(single):
            last, r, te, tr, said = env.step(actions[i])
            assert (reward[i], terminated[i], truncated[i], info["success"][i]) == (r, te, tr, said["success"])
            assert info["reward_terms"][i].tolist() == [said["reward_terms"][name] for name in envs.reward_names]
            assert info["metrics"][i].tolist() == [said["metrics"][name] for name in envs.metric_names]
            if te or tr:
                ended += 1
                assert info["_final_obs"][i]
                np.testing.assert_array_equal(info["final_obs"][i], last)
                last, _ = env.reset()
            np.testing.assert_array_equal(observation[i], last)
    assert ended == N


def test_it_declares_how_it_resets_and_what_goes_in_and_out(envs):
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.num_envs == N and envs.single_action_space.shape == (22,)
    assert envs.observation_space.shape == (N, *envs.single_observation_space.shape)
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    assert "final_obs" not in envs.step(some_actions(1)[0])[-1]


def test_returned_arrays_are_the_callers_own(envs):
    observation, _ = envs.reset(seed=0)
    kept = observation.copy()
    envs.step(some_actions(1)[0])
    np.testing.assert_array_equal(observation, kept)


def test_each_environment_can_have_a_seed_of_its_own_and_be_reset_alone(envs):
    seeded, _ = envs.reset(seed=[3, 4, 3])
    np.testing.assert_array_equal(seeded[0], seeded[2])
    assert (seeded[0] != seeded[1]).any()
    envs.step(some_actions(1)[0])
    before = envs.step(some_actions(1)[0])[0]
    after, _ = envs.reset(seed=3, options={"reset_mask": np.array([True, False, False])})
    np.testing.assert_array_equal(after[0], seeded[0])
    np.testing.assert_array_equal(after[1:], before[1:])


@pytest.mark.parametrize("seed", [[1, 2], -1, [1, 2, -3]])
def test_seeds_that_do_not_fit_are_refused(envs, seed):
    with pytest.raises(ValueError, match="seed must be one integer >= 0, or 3 of them or None"):
        envs.reset(seed=seed)


def test_a_mask_of_another_length_is_refused(envs):
    with pytest.raises(ValueError, match=r"reset_mask must have shape \(3,\), got \(2,\)"):
        envs.reset(options={"reset_mask": np.array([True, False])})


def test_bad_actions_are_refused_by_name_before_any_environment_moves(envs):
    envs.reset(seed=0)
    expected = envs.step(some_actions(1)[0])[0]
    envs.reset(seed=0)
    with pytest.raises(ActionError, match=r"actions must have shape \(3, 22\), got \(22,\)"):
        envs.step(np.zeros(22))
    bad = some_actions(1)[0].copy()
    bad[1, 2] = np.nan
    with pytest.raises(NotFiniteError, match=rf"1\.{envs.contract.action.joints[2]}"):
        envs.step(bad)
    bad[1, 2] = 1.5
    with pytest.raises(
        ActionError, match=rf"actions must lie in -1..1, got {{'1.{envs.contract.action.joints[2]}': 1.5}}"
    ):
        envs.step(bad)
    np.testing.assert_array_equal(envs.step(some_actions(1)[0])[0], expected)


def test_steps_are_asked_for_and_awaited_in_turn(envs):
    envs.reset(seed=0)
    with pytest.raises(gymnasium.error.NoAsyncCallError):
        envs.step_wait()
    envs.step_async(some_actions(1)[0])
    with pytest.raises(gymnasium.error.AlreadyPendingCallError):
        envs.step_async(some_actions(1)[0])
    with pytest.raises(gymnasium.error.AlreadyPendingCallError):
        envs.reset()
    envs.step_wait()


@pytest.mark.parametrize("workers", [0, 4])
def test_as_many_workers_as_environments_at_most(workers):
    with pytest.raises(ValueError, match=rf"workers must be 1..num_envs = 3, got {workers}"):
        sim.make_vec(REACH, 3, workers)


def test_an_unknown_engine_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match="Known: pybullet, mujoco"):
        sim.make_vec(REACH, 1, 1, engine="bullet")


def shared_blocks() -> set[str]:
    """Blocks that this process has open: those of other runs on the machine are not ours to count."""
    mapped = Path("/proc/self/maps").read_text().split()
    return {word for word in mapped if word.startswith("/dev/shm/psm_")}


def test_an_error_in_a_worker_arrives_with_its_words_and_nothing_is_left():
    before = shared_blocks()
    made = sim.make_vec(REACH, 2, 2, engine="mujoco", ranges={"tendon_stiffness_factor": (1e6, 1e6)})
    pids = made.worker_pids
    with pytest.raises(WorkerError, match="failed: DivergedError: simulation of hand22 diverged at t = "):
        made.reset(seed=0)
        for _ in range(50):
            made.step(np.ones((2, 22)))
    with pytest.raises(WorkerError, match="close this environment and make a new one"):
        made.reset()
    made.close()
    made.close()
    assert shared_blocks() == before and not [pid for pid in pids if alive(pid)]


def test_the_death_of_a_worker_is_told_and_does_not_hang():
    made = sim.make_vec(REACH, 2, 2, engine="mujoco")
    made.reset(seed=0)
    os.kill(made.worker_pids[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"died with exit code -9|is gone"):
        made.step(np.zeros((2, 22)))
    made.close()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int]) -> bool:
    end = time.monotonic() + UP_S
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(alive(pid) for pid in pids)


PARENT = """
import sys
import numpy as np
import sim

def main():
    envs = sim.make_vec("flexor/HandReach-v0", 1, 1, engine="mujoco")
    envs.reset(seed=0)
    print(envs._workers.block.memory.name, *envs.worker_pids, flush=True)
    ENDING

if __name__ == "__main__":
    main()
"""
FOREVER = "while True: envs.step(np.zeros((1, 22)))"


def parent(folder: Path, ending: str):
    """A process that owns a vector environment; also its workers and the name of its memory."""
    (folder / "parent.py").write_text(PARENT.replace("ENDING", ending))
    process = subprocess.Popen(
        [sys.executable, "parent.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    name, *pids = process.stdout.readline().split()
    return process, name, [int(pid) for pid in pids]


@pytest.mark.parametrize(
    "ending, code, last_words",
    [
        ("globals()['kept'] = envs", 0, ""),
        ("envs.step_async(np.zeros((1, 22))); raise ZeroDivisionError('planted')", 1, "ZeroDivisionError: planted"),
    ],
    ids=["the end of the interpreter", "an error in the middle of a step"],
)
def test_whatever_ends_the_parent_nothing_is_left_behind(tmp_path, ending, code, last_words):
    process, name, pids = parent(tmp_path, ending)
    _, words = process.communicate(timeout=UP_S)
    assert process.returncode == code
    assert words.rstrip().endswith(last_words) if last_words else words == ""
    assert "resource_tracker" not in words and "leaked" not in words
    assert len(pids) == 1 and gone(pids)
    assert name.lstrip("/") not in shared_blocks()


def test_ctrl_c_ends_parent_and_workers_with_one_traceback(tmp_path):
    process, name, pids = parent(tmp_path, FOREVER)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, words = process.communicate(timeout=UP_S)
    assert process.returncode == -signal.SIGINT
    assert words.count("Traceback") == 1 and "KeyboardInterrupt" in words and "resource_tracker" not in words
    assert gone(pids) and name.lstrip("/") not in shared_blocks()


def test_workers_leave_when_their_parent_is_killed(tmp_path):
    process, _, pids = parent(tmp_path, FOREVER)
    process.kill()
    process.communicate(timeout=UP_S)
    assert len(pids) == 1 and gone(pids)


def test_stable_baselines_trains_on_it(envs):
    learner = PPO("MlpPolicy", SB3VecEnv(envs), n_steps=64, batch_size=64, n_epochs=2, seed=0, device="cpu")
    before = [p.detach().clone() for p in learner.policy.parameters()]
    learner.learn(2 * 64 * N)
    assert learner.num_timesteps == 2 * 64 * N
    assert len(learner.ep_success_buffer) == 2 * N  # episodes of 50 steps within 128 of them, with their outcome
    assert all(torch.isfinite(p).all() for p in learner.policy.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.policy.parameters()))


def test_a_plain_loop_trains_on_it_and_bootstraps_from_the_last_observation(envs):
    """REINFORCE with a baseline, as one would write it in one file; the time limit is not taken for an end."""
    torch.manual_seed(0)
    size, n = envs.single_observation_space.shape[0], envs.single_action_space.shape[0]
    actor, critic = torch.nn.Linear(size, n), torch.nn.Linear(size, 1)
    before = actor.weight.detach().clone()
    optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=1e-3)
    observation = torch.from_numpy(envs.reset(seed=0)[0])
    bootstrapped = 0
    for _ in range(3):
        loss = torch.zeros(())
        for _ in range(20):
            policy = torch.distributions.Normal(actor(observation), 0.3)
            action = policy.sample()
            following, reward, terminated, truncated, info = envs.step(action.clamp(-1.0, 1.0).numpy())
            last = torch.from_numpy(following.copy())
            for i in np.flatnonzero(truncated):
                last[i] = torch.from_numpy(info["final_obs"][i])
                bootstrapped += 1
            with torch.no_grad():
                value = critic(last)[:, 0] * torch.from_numpy(~terminated)
            advantage = torch.from_numpy(reward).float() + 0.99 * value - critic(observation)[:, 0]
            loss = loss + advantage.square().mean() - (advantage.detach() * policy.log_prob(action).sum(1)).mean()
            observation = torch.from_numpy(following)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert bootstrapped == N
    assert torch.isfinite(actor.weight).all() and not torch.equal(before, actor.weight)


CUBE = "flexor/HandRotateCube-v0"


def test_what_only_a_critic_may_see_comes_with_the_observation_it_belongs_to():
    single: Any = gymnasium.make(CUBE, engine="mujoco")
    made = sim.make_vec(CUBE, 1, 1, engine="mujoco")
    try:
        expected = single.reset(seed=7)[1]["privileged"]
        np.testing.assert_array_equal(made.reset(seed=7)[1]["privileged"], [expected])
        ended = 0
        for actions in np.sign(some_actions(200, 1)):  # from edge to edge: it drops the cube
            *_, terminated, truncated, said = single.step(actions[0])
            *_, info = made.step(actions)
            if terminated or truncated:
                ended += 1
                np.testing.assert_array_equal(info["final_privileged"], [said["privileged"]])
                said = single.reset()[1]
            np.testing.assert_array_equal(info["privileged"], [said["privileged"]])
        assert ended > 0 and info["privileged"].shape == (1, len(made.privileged_names))
    finally:
        made.close()


@pytest.mark.filterwarnings("ignore")  # the library's own
@pytest.mark.parametrize("env_id, critic", [(REACH, ["policy"]), (CUBE, ["policy", "privileged"])])
def test_rsl_rl_trains_on_it(env_id, critic, capsys):
    from rsl_rl.runners import OnPolicyRunner

    network = {"class_name": "MLPModel", "hidden_dims": [32], "activation": "elu", "obs_normalization": True}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 0.5, "std_type": "log"}
    settings = {
        "num_steps_per_env": 60,
        "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": critic},
        "actor": network | {"distribution_cfg": gaussian},
        "critic": dict(network),
        "algorithm": {"class_name": "PPO", "num_learning_epochs": 2, "num_mini_batches": 2, "schedule": "fixed"},
    }
    made = sim.make_vec(env_id, N, 1, engine="mujoco")
    try:
        runner = OnPolicyRunner(RslRlVecEnv(made), settings, device="cpu")
        before = {name: value.clone() for name, value in runner.alg.actor.state_dict().items()}
        runner.learn(2)
        after = runner.alg.actor.state_dict()
        assert all(torch.isfinite(value).all() for value in after.values())
        weights = [name for name in after if name.endswith("weight")]
        assert weights and all(not torch.equal(before[name], after[name]) for name in weights)
    finally:
        made.close()
    capsys.readouterr()  # its log
