"""The command line: one table and one thin dispatcher. Everything heavy is imported inside the subcommand that needs it.

A subcommand is a plain function with typed keyword parameters in some package's `cli` module. Its signature and docstring
are the command line: parameters without a default become positional, the others become options. This file is the only place
that knows `tyro`.
"""

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from robot.errors import FlexorError, UnknownNameError

# name: (module:function, one line of help). A name of several words belongs to the group of its first one or two.
SUBCOMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("fleet.demo.cli:demo", "the whole job end to end, in minutes on two cores, with a report"),
    "envs": ("sim.cli:envs", "the environments, their sizes and their shipped policies"),
    "sim": ("policies.cli:sim", "watch an environment under a policy; pictures or a film"),
    "dexterity": ("sim.dexterity.cli:dexterity", "score a hand: 33 grasp types, ten thumb positions, with pictures"),
    "train": ("policies.cli:train", "learn a policy in simulation, or from a fleet's experience"),
    "eval": ("policies.cli:eval_", "measure an exported policy, with 95 % intervals and baselines"),
    "export": ("policies.cli:export", "turn a training run into an artifact"),
    "inspect": ("robot.onboard.cli:inspect", "what an artifact expects and gives, in a table"),
    "diff": ("robot.onboard.cli:diff", "what differs between two artifacts"),
    "check": ("robot.onboard.cli:check", "may this artifact drive this robot, and if not, why not"),
    "run": ("robot.onboard.cli:run", "drive a robot with an artifact: the onboard loop"),
    "calibrate": (
        "robot.motorbus.cli:calibrate",
        "find a tendon hand's stops and tension its cables, on its motor bus",
    ),
    "fleet keys": ("fleet.cli:keys", "make keys for a hub, its operator and its robots"),
    "fleet token": ("fleet.cli:token", "print a token with which one robot gets its key in"),
    "fleet enrol": ("fleet.cli:enrol", "on a new robot: make its key and have the hub let it in"),
    "fleet rotate": ("fleet.cli:rotate", "change a robot's or the hub's key without a gap"),
    "fleet revoke": ("fleet.cli:revoke", "put a robot out, within a second"),
    "fleet lease": ("fleet.cli:lease", "of several hubs, say which one directs deployments"),
    "fleet hub": ("fleet.cli:hub", "run a hub: it keeps what robots send and tells them what to run"),
    "fleet robot": ("fleet.cli:robot", "run one robot of the fleet: policy, uplink, updates"),
    "fleet status": ("fleet.cli:status", "what robots recorded, what the hub holds, how a rollout stands"),
    "fleet top": ("fleet.cli:top", "robots, experience, rollout and jobs on a terminal, refreshed"),
    "fleet deploy": ("fleet.cli:deploy", "sign an artifact and roll it out, one robot first"),
    "fleet hold": ("fleet.cli:hold", "freeze the running rollout, or go on with it"),
    "fleet rollback": ("fleet.cli:rollback", "take the last rollout back on all robots"),
    "fleet export": ("fleet.cli:export", "seal a hub's experience into packs for a learner"),
    "fleet export lerobot": ("fleet.cli_exports:lerobot", "the same as a LeRobot dataset"),
    "fleet export parquet": ("fleet.cli_exports:parquet", "the same as Parquet, a file per episode"),
    "fleet export mcap": ("fleet.cli_exports:mcap", "the same as MCAP, for Foxglove and Rerun"),
    "fleet export packs": ("fleet.cli_exports:packs", "the same as `fleet export`"),
    "fleet export manifest": ("fleet.cli_exports:manifest", "list packs and segments by hash, for trainers elsewhere"),
    "fleet login": ("fleet.cli_page:login", "a one-time link that signs you in on the hub's page"),
    "fleet web": ("fleet.cli_page:web", "show the page of a hub that runs without one"),
    "fleet job add": ("fleet.cli_jobs:add", "give the fleet something to do"),
    "fleet job list": ("fleet.cli_jobs:list_", "jobs, who has them, and what they cost"),
    "fleet job cancel": ("fleet.cli_jobs:cancel", "call a job off"),
    "bench sim": ("sim.cli:bench", "simulated seconds per second, and what is around the engine"),
    "bench hand": ("sim.cli:bench_hand", "force, speed, precision, load, heat and watts of a hand"),
    "bench train": ("policies.cli:bench_train", "wall-clock time to a policy that works, and the peers beside it"),
    "bench fleet-learning": (
        "policies.cli:bench_fleet_learning",
        "what each robot must live through when several share",
    ),
    "bench hub": ("fleet.cli_hub:bench", "exports, the page's overview and the job queue of a hub"),
    "bench fleet": ("fleet.bench.cli:bench", "ingest, many robots, kills, rollbacks; Reverb beside it"),
    "bench onboard": ("robot.onboard.cli:bench", "latency and processor share of a decision at the control rate"),
}

GROUPS = {  # first words of names of several
    "fleet": "a hub and its robots",
    "fleet job": "work for robots, done once",
    "bench": "the figures this project quotes, measured here",
}

# Modules an extra brings: a robot's computer has none of them.
EXTRA_OF_MODULE = {
    **dict.fromkeys(
        ("pybullet", "pybullet_utils", "mujoco", "gymnasium", "numba", "viser", "av", "PIL", "trimesh", "coacd", "cma"),
        "sim",
    ),
    **dict.fromkeys(("torch", "onnx", "tensorboard"), "train"),
    **dict.fromkeys(("zmq", "tuf", "securesystemslib", "cryptography", "pyarrow", "prometheus_client"), "fleet"),
    **dict.fromkeys(("starlette", "uvicorn"), "fleet"),
    **dict.fromkeys(("dynamixel_sdk", "serial"), "hardware"),
    "ray": "scale",
    "stable_baselines3": "dev",
}

EXIT_REFUSED = 2  # as argparse: the command was understood by nobody, or refused by name
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell reports


def overview(group: str = "") -> str:
    """The table as text: everything, or one group's rows."""
    rows = {name: text for name, (_, text) in SUBCOMMANDS.items() if not group or name.startswith(group + " ")}
    width = max(map(len, rows)) + 2
    what = f"flexor {group} SUBCOMMAND" if group else "flexor SUBCOMMAND"
    about = (
        GROUPS[group] if group else "simulate, train, export and run tendon-driven hands, and let a fleet of them learn"
    )
    lines = [f"usage: {what} ...", "", about, ""]
    lines += [f"  {name:<{width}}{text}" for name, text in rows.items()]
    return "\n".join([*lines, "", f"{what} --help says what one takes, with an example."])


def built(group: str) -> bool:
    """Whether there is a subcommand in a group yet."""
    return group in GROUPS and any(name.startswith(group + " ") for name in SUBCOMMANDS)


def resolve(name: str) -> Callable[..., Any]:
    """The function behind a row of the table; imports its module."""
    module, _, function = SUBCOMMANDS[name][0].partition(":")
    return getattr(import_module(module), function)


def split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The subcommand's name and the arguments left for it.

    Raises:
        UnknownNameError: No such subcommand; the message lists the known ones.
    """
    for words in (3, 2, 1):
        name = " ".join(argv[:words])
        if len(argv) >= words and name in SUBCOMMANDS:
            return name, list(argv[words:])
    group = group_of(argv)
    known = [name for name in SUBCOMMANDS if not group or name.startswith(group + " ")]
    raise UnknownNameError("subcommand", " ".join(argv[: len(group.split()) + 1]), known)


def group_of(argv: Sequence[str]) -> str:
    """The longest group that some words begin with, "" for none."""
    return next((g for g in (" ".join(argv[:2]), argv[0]) if built(g)), "")


def description(function: Callable[..., Any]) -> str:
    """What a function's docstring says besides its arguments: the summary and the example."""
    kept, section = [], ""
    for line in (inspect.getdoc(function) or "").splitlines():
        if line and not line[0].isspace():
            section = line.strip() if line.rstrip().endswith(":") and " " not in line.strip() else ""
        if section not in ("Args:", "Returns:", "Raises:"):
            kept.append(line)
    return "\n".join(kept).strip()


def run(name: str, args: list[str]) -> int:
    """Parse the arguments of one subcommand and call it. An int it returns is the exit code."""
    import tyro

    function = resolve(name)
    result = tyro.cli(
        function,
        prog=f"flexor {name}",
        description=description(function),
        args=args,
        config=(tyro.conf.PositionalRequiredArgs, tyro.conf.PositionalMetavarFromFieldName),
    )
    return result if type(result) is int else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flexor`; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] == "--version":
        from importlib.metadata import version

        print(f"flexor {version('flexor')}")
        return 0
    group = group_of(argv)
    if group and argv[len(group.split()) :][:1] in ([], ["-h"], ["--help"]):
        print(overview(group))
        return 0
    where = "flexor"
    try:
        name, rest = split(argv)
        where = f"flexor {name}"
        return run(name, rest)
    except FlexorError as error:
        print(f"{where}: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRA_OF_MODULE:
            raise
        extra = EXTRA_OF_MODULE[module]
        print(f"{where}: needs {module!r}, which is not installed here.", file=sys.stderr)
        print(f'  do: pip install "flexor[{extra}]"', file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print(f"\n{where}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # the reader of a pipe went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
