"""`flexor fleet ...`: thin functions whose signatures are the command line. Heavy imports are inside."""

from pathlib import Path
from typing import Literal

HUB = "127.0.0.1:5570"


def keys(dir: Path = Path("keys"), robots: str = "", hubs: str = "", bundle: str = "", out: Path | None = None) -> None:
    """Make keys for a hub, its operator, and its robots. What is there stays; robots can be added later.

    Example:
        flexor fleet keys --dir keys --robots left,right

    Args:
        dir: Key folder. Secrets in it have mode 600.
        robots: Names, comma-separated.
        hubs: Names of hubs, comma-separated, where there are several: each gets a key of its own.
        bundle: Also copy what this robot needs, and nothing else, to --out.
        out: Where the bundle goes.
    """
    from datetime import UTC, datetime

    from fleet.catalogue import make_root
    from fleet.keys import bundle as make_bundle
    from fleet.keys import load_allowed, make_keys

    made = make_keys(dir, _words(robots), hubs=_words(hubs))
    make_root(dir, datetime.now(UTC))
    if bundle:
        make_bundle(dir, bundle, out or Path(bundle))
    allowed, refused = load_allowed(dir)
    print(f"{dir}: {len(made)} files made; robots allowed: {', '.join(sorted(allowed.values())) or 'none'}")
    for name, why in refused.items():
        print(f"  {name} lets nobody in: {why}")


def token(name: str, keys: Path = Path("keys"), minutes: float = 60.0, hub_name: str = "") -> None:
    """Print a token with which a new robot (or one with a lost key) gets its own key in. It works once, on the robot, with `flexor fleet enrol`.

    Example:
        flexor fleet token left --keys keys --minutes 60

    Args:
        name: The robot's.
        keys: The hub's key folder.
        minutes: How long it is good.
        hub_name: Which hub it is for, where there are several.
    """
    import time

    from fleet.enrol import make_token

    print(make_token(keys, name, time.time(), life_s=60.0 * minutes, hub=hub_name))


def enrol(token: str, hub: str = HUB, keys: Path = Path("keys")) -> None:
    """On a new robot: make its key, have the hub let it in, and keep whose signatures count. The secret never leaves the robot.

    Example:
        flexor fleet enrol flx1.left.TOKEN --hub 127.0.0.1:5570 --keys left_keys

    Args:
        token: As `flexor fleet token` printed it.
        hub: HOST:PORT of the hub.
        keys: The robot's key folder, made if missing.
    """
    from fleet.enrol import parse_token
    from fleet.keyring import enrol as enrol_with
    from fleet.sockets import parse_hub

    parsed, address = parse_token(token), parse_hub(hub)
    enrol_with(parsed, (address.host, address.port), keys)
    print(f"robot {parsed.robot} is enrolled; its key is in {keys}/robots")


def rotate(name: str, hub: str = HUB, keys: Path = Path("keys"), activate: bool = False) -> None:
    """Change a key without a gap: a robot's (on the robot), or the hub's with NAME "hub" (on the hub, in two steps).

    A robot's old key stays good for a day. The hub's next key is announced to robots first; when they all have heard it (a minute, or as long as
    the longest absence you allow), run it again with --activate and start the hub again.

    Example:
        flexor fleet rotate left --hub 127.0.0.1:5570 --keys left_keys

    Args:
        name: The robot's, or "hub".
        hub: HOST:PORT of the hub, for a robot's key.
        keys: Key folder of the robot, or of the hub.
        activate: For the hub: the next key becomes its key.
    """
    from fleet.keyring import rotate as rotate_robot
    from fleet.keys import next_hub_key
    from fleet.sockets import parse_hub

    if name == "hub":
        key = next_hub_key(keys, activate=activate).decode()
        print(f"the hub's key is {key}; start the hub again" if activate else f"announcing {key}; then: --activate")
        return
    address = parse_hub(hub)
    rotate_robot(name, (address.host, address.port), keys)
    print(f"robot {name} has a new key; the old one is good for a day")


def revoke(name: str, keys: Path = Path("keys"), why: str = "by the operator") -> None:
    """Put a robot out, on every hub: its keys never count again. A hub on this folder cuts it off within a second, others as soon as they hear.

    Example:
        flexor fleet revoke left --keys keys

    Args:
        name: The robot's.
        keys: Key folder with the operator's signing key.
        why: For the record.
    """
    import time

    from fleet.revocation import revoke as revoke_robot

    done = revoke_robot(keys, name, why, time.time())
    print(f"{name}: {len(done)} key(s) revoked; a new key: flexor fleet token {name}")


def lease(hub_name: str, keys: Path = Path("keys")) -> None:
    """Where there are several hubs: say which one directs deployments. Robots and hubs refuse whoever had the lease before.

    Example:
        flexor fleet lease north --keys keys

    Args:
        hub_name: Name of the hub that is to direct.
        keys: Key folder with the operator's signing key; a hub on it takes the lease and tells the others.
    """
    import time

    from fleet.lease import grant

    print(f"hub {hub_name} directs from term {grant(keys, hub_name, time.time()).term} on")


def hub(
    dir: Path = Path("hub"),
    keys: Path = Path("keys"),
    port: int = 5570,
    host: str = "127.0.0.1",
    name: str = "hub",
    reserve_mb: int = 256,
    web: int | None = None,
    web_names: str = "",
    metrics: int | None = None,
    lease_s: float = 30.0,
    peers: str = "",
    packs: Path | None = None,
    config: Path | None = None,
) -> None:
    """Run a hub: it keeps what robots send and tells them what to run. Stop it with Ctrl-C.

    Example:
        flexor fleet hub --dir hub --keys keys --port 5570

    Args:
        dir: Its log, catalogue and decisions.
        keys: Key folder, made with `flexor fleet keys`.
        port: Control; port+1 is for data, port+2 for the operator (this machine only).
        host: Address to listen on; 0.0.0.0 for robots on other machines.
        name: In logs and answers.
        reserve_mb: Disk space kept free; below it robots keep their experience themselves.
        web: Port of the page, on this machine only.
        web_names: Host names under which a proxy of yours shows the page, comma-separated.
        metrics: Port of the figures for Prometheus, on this machine only.
        lease_s: How long a robot that is not heard of keeps its job; longer than an episode.
        peers: The other hubs, NAME@HOST:PORT, comma-separated; then --name is this one's key in hubs/, and port+3 is for them.
        packs: Folder of packs that learners draw from, to show how much they drew.
        config: TOML file with any of these options; what differs from its default on the command line wins.
    """
    import logging

    from fleet.configs import overlay
    from fleet.hub import HubConfig, serve
    from fleet.processes import follow_parent
    from fleet.sockets import parse_hub

    o = overlay(hub, config, locals())
    follow_parent()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    serve(
        HubConfig(
            folder=o.dir,
            keys=o.keys,
            port=o.port,
            host=o.host,
            name=o.name,
            reserve_bytes=o.reserve_mb << 20,
            lease_s=o.lease_s,
            peers=tuple(parse_hub(peer) for peer in _words(o.peers)),
            web_port=o.web,
            metrics_port=o.metrics,
            web_names=tuple(_words(o.web_names)),
            packs=o.packs,
        )
    )


def robot(
    hub: str = HUB,
    keys: Path = Path("keys"),
    name: str = "robot",
    dir: Path | None = None,
    artifact: str = "",
    backend: str = "mock",
    episodes: int = 0,
    rate: Literal["real", "fast"] = "real",
    seed: int = 0,
    explore: bool = True,
    drain_s: float = 10.0,
    spool_mb: int = 8192,
    battery_wh: float = 0.0,
    base_w: float = 0.0,
    jobs: bool = True,
    ack: Literal["local", "peer"] = "local",
    estop: Path | None = None,
    config: Path | None = None,
) -> None:
    """Run one robot of the fleet: policy, uplink, updates. It goes on without the hub and keeps its experience.

    Example:
        flexor fleet robot --hub 127.0.0.1:5570 --keys keys --name left --artifact hand_reach

    Args:
        hub: HOST:PORT of the hub; several, comma-separated, are tried in turn.
        keys: Folder with this robot's secret key, the hub's public key and trust/.
        name: Which robot; its key must be in --keys.
        dir: Its spool, slots and downloads; robots/NAME if not given.
        artifact: What to run at first; later the hub says. May be left out once it has run.
        backend: pybullet, mujoco or mock: the robot lives in a process of its own.
        episodes: Stop after this many; 0 goes on until Ctrl-C.
        rate: real time, or as fast as the engine goes.
        seed: Of the episodes and the exploration noise.
        explore: Act with the noise the policy was trained with, so that others can learn from it.
        drain_s: At the end, how long to wait until the hub has everything.
        spool_mb: Size at which the oldest experience is dropped (and its loss declared).
        battery_wh: Capacity of its battery; its charge is counted in joules. 0: it has none, or does not say.
        base_w: What everything but its motors takes, in watts; for the count of joules.
        jobs: Take jobs from the hub.
        ack: When experience may be forgotten here: local, one hub has it on its disk; peer, two have, so that the loss of either loses nothing.
        estop: Emergency stop: pressed once this file is there and is not "0" (a GPIO's value file, or touch); SIGUSR2 always presses it.
        config: TOML file with any of these options; what differs from its default on the command line wins.
    """
    import logging

    from fleet.configs import overlay
    from fleet.processes import follow_parent
    from fleet.robot import RobotConfig, serve

    o = overlay(robot, config, locals())
    follow_parent()
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s {o.name}: %(message)s")
    serve(
        RobotConfig(
            hubs=o.hub,
            keys=o.keys,
            name=o.name,
            folder=o.dir or Path("robots") / o.name,
            artifact=o.artifact,
            backend=o.backend,
            episodes=o.episodes,
            paced=o.rate == "real",
            seed=o.seed,
            explore=o.explore,
            drain_s=o.drain_s,
            spool_bytes=o.spool_mb << 20,
            battery_wh=o.battery_wh,
            base_w=o.base_w,
            jobs=o.jobs,
            ack=o.ack,
            estop=o.estop,
        )
    )


def status(
    hub: str = HUB,
    keys: Path = Path("keys"),
    count: bool = True,
    json: Path | None = None,
) -> None:
    """What robots recorded, what the hub holds, what is lost or doubled, and how a rollout stands.

    Example:
        flexor fleet status --hub 127.0.0.1:5570 --keys keys --json status.json

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        count: Read the whole log and count record by record; without it the hub's cursors are shown.
        json: Also write the figures here.
    """
    from fleet.operator import ask, table

    body = ask(hub, keys, "status", {"count": count}, timeout_s=120.0 if count else 5.0)
    print(table(body))
    if json is not None:
        from robot.report import write_json

        write_json(json, command="fleet status", seed=None, results=body)


def deploy(
    artifact: str,
    hub: str = HUB,
    keys: Path = Path("keys"),
    plan: str = "quick",
    name: str = "",
    version: str = "",
    json: Path | None = None,
) -> None:
    """Sign an artifact into the catalogue and roll it out: one robot first, all when its results are no worse.

    Example:
        flexor fleet deploy models/hand_reach/v2 --hub 127.0.0.1:5570 --keys keys

    Args:
        artifact: A folder, or the name of a shipped one.
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the release keys and the operator's.
        plan: quick (one, then all; few episodes, even odds) or standard (one, 5 %, 25 %, all; with the evidence for it).
        name: Under which it is published; the folder's name if not given.
        version: v1, v2...; the folder's if not given.
        json: Also write the answer here.
    """
    from datetime import UTC, datetime

    from fleet.catalogue import Catalogue
    from fleet.operator import ask
    from robot.artifacts import find_artifact

    folder = find_artifact(artifact).resolve()
    catalogue = Path(ask(hub, keys, "where")["catalogue"])
    name, version = name or folder.parent.name, version or folder.name
    ref = Catalogue(catalogue, keys).publish(folder, name, version, datetime.now(UTC))
    body = ask(hub, keys, "deploy", {"name": name, "version": version, "plan": plan})
    print(f"{ref.label} ({ref.sha256[:12]}) signed; rollout {body['rollout']}: {body['status']}, stage {body['stage']}")
    if json is not None:
        from robot.report import write_json

        write_json(json, command="fleet deploy", seed=None, results={**body, "policy_sha256": ref.sha256})


def hold(hub: str = HUB, keys: Path = Path("keys"), resume: bool = False) -> None:
    """Freeze the running rollout: nobody else gets the new policy, nobody loses it.

    Example:
        flexor fleet hold --hub 127.0.0.1:5570 --keys keys

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        resume: Go on instead.
    """
    from fleet.operator import ask

    body = ask(hub, keys, "resume" if resume else "hold")
    print(f"rollout {body['rollout']}: {body['status']}, stage {body['stage']}")


def rollback(hub: str = HUB, keys: Path = Path("keys")) -> None:
    """Take the last rollout back on all robots and ban its policy.

    Example:
        flexor fleet rollback --hub 127.0.0.1:5570 --keys keys

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
    """
    from fleet.operator import ask

    body = ask(hub, keys, "rollback")
    print(f"rollout {body['rollout']}: {body['status']}; robots go back within seconds of being online")


def export(
    dir: Path = Path("hub"),
    out: Path = Path("packs"),
    contract: str = "",
    include_banned: bool = False,
    json: Path | None = None,
) -> None:
    """Seal a hub's experience into packs that a learner reads in place, one per contract. The hub may be running.

    Example:
        flexor fleet export --dir hub --out packs

    Args:
        dir: The hub's folder.
        out: Where the packs go.
        contract: Only experience of this contract (sha256); all if not given.
        include_banned: Also that of policies that were rolled back.
        json: Also write what was made here.
    """
    from fleet.packer import pack_log

    packed = pack_log(dir, out, contract_sha256=contract, include_banned=include_banned)
    for path, meta in packed.packs.items():
        print(
            f"{path}: {meta.steps} steps of {len(meta.episodes)} episodes by {meta.source.get('robots', '')}, {len(meta.policies)} policies"
        )
    if packed.bad_records or packed.banned_records:
        print(f"left out: {packed.banned_records} records of banned policies, {packed.bad_records} that are no chunks")
    for what in packed.odd:
        print(f"left out, does not fit the others: {what}")
    if json is not None:
        from robot.report import write_json

        packs = [{"path": str(p), "steps": m.steps, "episodes": len(m.episodes)} for p, m in packed.packs.items()]
        results = {"packs": packs, "steps": packed.steps, "bad_records": packed.bad_records}
        results |= {"banned_records": packed.banned_records, "odd": packed.odd}
        write_json(json, command="fleet export", seed=None, results=results)


def top(hub: str = HUB, keys: Path = Path("keys"), every_s: float = 1.0, times: int = 0) -> None:
    """Robots, experience, the rollout and jobs on a terminal, refreshed until Ctrl-C. What needs a person is on top.

    Example:
        flexor fleet top --hub 127.0.0.1:5570 --keys keys

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        every_s: Seconds between looks.
        times: Stop after this many looks; 0 goes on.
    """
    import itertools
    import shutil
    import sys
    import time

    from fleet.errors import HubAwayError
    from fleet.operator import ask
    from fleet.top import screen
    from fleet.web.watch import Watch

    watch = Watch(lambda: ask(hub, keys, "overview"))
    live = sys.stdout.isatty()
    for look in itertools.count(1):
        size = shutil.get_terminal_size()
        try:
            text = screen(watch.look(), **({"width": size.columns, "height": size.lines} if live else {}))
        except HubAwayError as error:
            text = str(error)
        clear = "\x1b[2J\x1b[H" if live else ""
        print(f"{clear}{time.strftime('%H:%M:%S')}\n{text}", flush=True)
        if look == times:
            return
        time.sleep(every_s)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
