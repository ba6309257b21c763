"""The page as an ASGI application. Reading is free on loopback; acting needs a session, its token, and a request from the page itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from fleet import metrics
from fleet.errors import FleetError
from fleet.web.bodies import shape, states
from fleet.web.doors import SESSION_S, Doors
from fleet.web.line import HubLine
from fleet.web.watch import Watch
from robot.errors import FlexorError

STATIC = Path(__file__).with_name("static")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
COOKIE = "flexor_page"
MAX_BODY_BYTES = 4096
MAX_READERS = 64
EVERY_S = 1.0
ACTIONS = ("hold", "resume", "rollback", "job_add", "job_cancel")
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


class Page:
    """The handlers, and what they share.

    Args:
        line: To the hub.
        doors: Who is signed in.
    """

    def __init__(self, line: HubLine, doors: Doors) -> None:
        self._line, self._doors = line, doors
        self._watch = Watch(lambda: line.ask("overview"))
        self._turn = asyncio.Lock()
        self._readers = 0

    async def look(self) -> dict[str, Any]:
        """The overview, at most one question to the hub at a time."""
        async with self._turn:
            try:
                return await run_in_threadpool(self._watch.look)
            except FlexorError as error:
                return {"away": str(error)}

    # --- reading -----------------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def overview(self, request: Request) -> Response:
        return _json(await self.look())

    async def live(self, request: Request) -> Response:
        """The overview once a second, as server-sent events."""
        if self._readers >= MAX_READERS:
            return _refusal(503, f"{MAX_READERS} readers are connected already")

        async def events() -> AsyncIterator[bytes]:
            while True:
                began_s = time.monotonic()
                yield b"data: " + msgspec.json.encode(await self.look()) + b"\n\n"
                await asyncio.sleep(max(0.05, EVERY_S - (time.monotonic() - began_s)))

        return _Counted(events(), self._count)

    def _count(self, change: int) -> None:
        self._readers += change

    async def fall(self, request: Request) -> Response:
        report = await run_in_threadpool(self._line.ask, "fall", {"robot": request.path_params["robot"]})
        try:
            return _json(states(report))
        except (ValueError, KeyError, TypeError) as error:
            return _refusal(422, f"the robot's report cannot be drawn: {error}")

    async def model(self, request: Request) -> Response:
        return _json(await run_in_threadpool(shape, request.path_params["name"]))

    async def figures(self, request: Request) -> Response:
        """Prometheus' text."""
        overview = await self.look()
        if "away" in overview:
            return _refusal(503, overview["away"])
        registry = CollectorRegistry()
        registry.register(_Collected(list(metrics.families(overview))))  # type: ignore[arg-type]
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    # --- signing in --------------------------------------------------------------------------------------------------

    async def session(self, request: Request) -> Response:
        token = self._doors.token(request.cookies.get(COOKIE, ""), time.monotonic())
        return _json({"signed_in": bool(token), "token": token})

    async def sign_in(self, request: Request) -> Response:
        body = await _body(request)
        now_s = time.monotonic()
        if isinstance(body.get("link"), str):
            await run_in_threadpool(self._line.ask, "link_use", {"token": body["link"]})
        else:
            wait_s = self._doors.wait_s(now_s)
            if wait_s > 0.0:
                return _refusal(429, f"too many wrong secrets; try again in {wait_s:.0f} s, or do: flexor fleet login")
            if not self._doors.knows(str(body.get("secret", "")), now_s):
                return _refusal(403, "that is not the secret in KEYS/page.secret")
        cookie = self._doors.open(now_s)
        answer = _json({"signed_in": True, "token": self._doors.token(cookie, now_s)})
        answer.set_cookie(COOKIE, cookie, max_age=int(SESSION_S), httponly=True, samesite="strict", path="/")
        return answer

    async def sign_out(self, request: Request) -> Response:
        self._doors.shut(request.cookies.get(COOKIE, ""))
        answer = _json({"signed_in": False, "token": ""})
        answer.delete_cookie(COOKIE, path="/")
        return answer

    # --- acting ------------------------------------------------------------------------------------------------------

    async def act(self, request: Request) -> Response:
        body = await _body(request)
        cookie, token = request.cookies.get(COOKIE, ""), request.headers.get("x-flexor-token", "")
        if not self._doors.admits(cookie, token, time.monotonic()):
            return _refusal(403, "sign in first")
        command, arguments = body.get("command"), body.get("arguments", {})
        if command not in ACTIONS or not isinstance(arguments, dict):
            return _refusal(400, f"unknown action {command!r}; known: {', '.join(ACTIONS)}")
        return _json(await run_in_threadpool(self._line.ask, command, arguments))


class _Counted(StreamingResponse):
    """Events, counted while they are sent. Not within the iterator: where the client is gone before its first step, it never ends."""

    def __init__(self, events: AsyncIterator[bytes], count: Callable[[int], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})  # not held back
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._count(1)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._count(-1)


class _Collected:
    """What prometheus_client calls a collector."""

    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> list[Any]:
        return self._families


class Guard:
    """Around the application: refuses other host names and foreign pages, and adds the headers.

    A page of another site can make a browser ask us under its own host name (DNS rebinding), or post to us; the names and the origin say so.

    Args:
        names: Host names, without port, under which the page is reached.
    """

    def __init__(self, app: ASGIApp, *, names: tuple[str, ...]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self._refuses(scope["method"], headers)

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *HEADERS]
            await send(message)

        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refuses(self, method: str, headers: dict[str, str]) -> Response | None:
        host = headers.get("host", "")
        if _name(host) not in self._names:
            return _refusal(
                421,
                f"this page is not {host!r}; it answers to {', '.join(self._names)} (flexor fleet hub --web-names adds more)",
            )
        own = headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        if method in ("GET", "HEAD"):
            link = (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest", "document")) == (
                "navigate",
                "document",
            )
            if not own and not link:  # a link may lead here; another site's page may not hold our readers' places
                return _refusal(403, "a request from another site was refused")
            return None
        origin = headers.get("origin", "")
        if origin and urlsplit(origin).netloc != host:
            return _refusal(403, "a request from another page was refused")
        if not own:
            return _refusal(403, "a request from another site was refused")
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return _refusal(415, "expected application/json")
        return None


def make_app(line: HubLine, doors: Doors, names: tuple[str, ...] = ()) -> ASGIApp:
    """The whole application."""
    page = Page(line, doors)
    routes = [
        Route("/", page.index),
        Route("/api/overview", page.overview),
        Route("/api/live", page.live),
        Route("/api/fall/{robot}", page.fall),
        Route("/api/model/{name}", page.model),
        Route("/api/session", page.session),
        Route("/api/sign_in", page.sign_in, methods=["POST"]),
        Route("/api/sign_out", page.sign_out, methods=["POST"]),
        Route("/api/act", page.act, methods=["POST"]),
        Route("/metrics", page.figures),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    app = Starlette(routes=routes, exception_handlers={FlexorError: _refused})  # type: ignore[dict-item]
    return Guard(app, names=(*LOOPBACK_NAMES, *names))


class BadRequestError(FleetError, ValueError):
    """A body that is too long, or no JSON object."""


async def _body(request: Request) -> dict[str, Any]:
    data = b""
    async for part in request.stream():
        data += part
        if len(data) > MAX_BODY_BYTES:
            raise BadRequestError(f"a body of more than {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequestError(f"body: {error}") from error


async def _refused(request: Request, error: Exception) -> Response:
    return _refusal(400, str(error))


def _name(host: str) -> str:
    """A Host header without its port."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and ":" in host else host


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _refusal(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
