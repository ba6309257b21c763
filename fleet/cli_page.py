"""`flexor fleet web` and `flexor fleet login`. Heavy imports are inside."""

from pathlib import Path

HUB = "127.0.0.1:5570"


def web(hub: str = HUB, keys: Path = Path("keys"), port: int = 5580, names: str = "") -> None:
    """Show the page of a hub on this machine; `flexor fleet hub --web PORT` does the same beside the hub. Stop it with Ctrl-C.

    Example:
        flexor fleet web --hub 127.0.0.1:5570 --keys keys --port 5580

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key; page.secret in it signs you in.
        port: Where the page is, on this machine only. Prometheus reads /metrics there.
        names: Host names under which a proxy of yours shows the page, comma-separated.
    """
    from fleet.processes import follow_parent
    from fleet.web.serve import WebConfig, serve

    follow_parent()
    known = tuple(name.strip() for name in names.split(",") if name.strip())
    serve(WebConfig(hub=hub, keys=keys, ports=(port,), names=known))


def login(hub: str = HUB, keys: Path = Path("keys"), page: str = "") -> None:
    """Print a link that signs you in on the hub's page, once, within two minutes.

    Example:
        flexor fleet login --keys keys

    Args:
        hub: HOST:PORT of a hub on this machine.
        keys: Key folder with the operator's key.
        page: Address of the page, if the hub did not start it itself.
    """
    from fleet.operator import ask

    body = ask(hub, keys, "link_make")
    where = page or body["page"] or "http://127.0.0.1:5580/"
    print(f"{where.rstrip('/')}/#link={body['token']}")
    print(f"good once, within {body['seconds']:.0f} s")
