"""One store's routes in one process: who asks, what for, and where the answer is made.

No web framework is known here: an adapter hands over a `Request` with the name of its route, and sends the
`Response`. Everything blocks, for milliseconds: an adapter with an event loop calls it from a thread. Only the
stream and the host's own snapshot are asked for by methods of their own, because there the frameworks differ.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qigcore.rows import Batch
from qigheal.api import PREFIX, judged, reading
from qigheal.api.access import Access, too_many
from qigheal.api.exchange import MOST_BODY, Refused, Request, Response, answer, refusal
from qigheal.api.jobs import PROGRAM, Jobs, reap
from qigheal.api.limits import Limits
from qigheal.api.packing import packed
from qigheal.api.pages import Asset, Pages
from qigheal.api.records import Glance, Health, Patches, ReviewRequest, Triggered
from qigheal.api.routes import BY_NAME, Name, methods_of
from qigheal.api.stream import EVENTS, MEDIA, Client, Event, Stream
from qigheal.api.unchanged import BRAKED, JUDGED, RECORDED, Unchanged

if TYPE_CHECKING:
    from qigheal.monitor import GeometricHealthMonitor

log = logging.getLogger("qigheal")

LIMIT: Final = (100, 1, 1000)  # default, least, most
SKIP: Final = (0, 0, 999_999_999)
MOST_SINCE: Final = 1e12
AGES_S: Final = 30.0
"""Seconds after which health is worked out anew where nothing was written: its newest snapshot is older then."""
PHASE_S: Final = 60.0
"""The phase is looked up anew when the ledger or the healer's settings change, and else so often: its brakes depend on
the clock, and its gates on the whole history, which takes half a second to read where it has a million snapshots."""

WINDOW: Final = (50, 10, 1000)


class Api:
    """What is served under `prefix` for one store.

    store: the folder that the service writes; it need not exist yet.
    host: the service's repository, which `POST heal` and reviews of changes need.
    take_snapshot: the host's own reading, called by `POST snapshot`; it returns a `GeometricSnapshot`, or an
        awaitable of one, or raises `exchange.Refused` with the answer. None: the service takes its snapshots by
        itself, and the route says so.
    monitor: that of this process; what it holds is written before anything is read.
    access: the tokens; None: those of the environment.
    widget_ancestors: who may frame the widget, as Content-Security-Policy has it, such as
        "https://status.example.org".
    asset: the dashboard's files, as `qigheal.dashboard.asset`; None: the adapter finds them.
    program: what runs a job; a server in which `sys.executable` is no Python has to name one.
    streams: live streams at once in this process. A server that gives each request a thread loses one to each.

    Owns no thread until a stream is asked for; `close` ends that.
    """

    def __init__(
        self,
        store: Path,
        *,
        host: Path | None = None,
        take_snapshot: Callable[[], Awaitable[Any] | Any] | None = None,
        monitor: GeometricHealthMonitor | None = None,
        access: Access | None = None,
        prefix: str = PREFIX,
        asset: Asset | None = None,
        widget_ancestors: str = "'self'",
        streams: int = 16,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self.store = Path(store).absolute()
        self.host = None if host is None else Path(host).absolute()
        self.prefix = prefix.rstrip("/")
        self.take_snapshot = take_snapshot
        self.monitor = monitor
        self.access = Access() if access is None else access
        self.jobs = Jobs(self.store, program=program)
        self.stream = Stream(self.store, self._event, flush=self._flush, most=streams)
        self._limits = Limits(self.store)
        self._unchanged = Unchanged(self.store)
        self._widget_ancestors = widget_ancestors
        self._pages = None if asset is None else Pages(asset, widget_ancestors)

    def close(self) -> None:
        """End the streams. Jobs that run go on."""
        self.stream.close()
        reap()

    def serve_pages(self, asset: Asset) -> None:
        """Where the dashboard's files are, unless that was said already."""
        if self._pages is None:
            self._pages = Pages(asset, self._widget_ancestors)

    def answer(self, name: Name, request: Request) -> Response:
        """The answer of a route; errors are answers too."""
        route = BY_NAME[name]
        try:
            if route.method == "POST" and len(request.body) > MOST_BODY:
                raise Refused(
                    413, "too_large", f"expected a body of at most {MOST_BODY} bytes, got a larger one"
                )
            if route.right == "page":
                self._pages_open(request)
            elif route.right != "glance":
                self.access.check(request, route.right, self._limits)
            made = packed(getattr(self, f"_{name}")(request), request)
        except Refused as refused:
            made = refusal(refused)
        return _head(made) if request.method == "HEAD" else made

    def unknown(self, path: str, request: Request) -> Response:
        """For what is below the prefix and no route of it: 404, or 405 with the methods that there are."""
        if methods := methods_of(path):
            allowed = ", ".join(methods)
            made = refusal(
                Refused(405, "method", f"expected {allowed}, got {request.method[:16]}", Allow=allowed)
            )
        else:
            made = refusal(
                Refused(404, "not_found", f"nothing is served here; see {self.prefix}/openapi.json")
            )
        return _head(made) if request.method == "HEAD" else made

    def may_take_snapshot(self, request: Request) -> Response | None:
        """Why `take_snapshot` is not to be called for this request; None: call it, and answer by `taken`."""
        try:
            self.access.check(request, "heal", self._limits)
            if self.take_snapshot is None:
                raise Refused(
                    409,
                    "automatic",
                    "this service takes its snapshots by itself; see GET snapshots for the newest",
                )
            self._rated("snapshot", self.access.snapshots_per_minute)
        except Refused as refused:
            return refusal(refused)
        return None

    def taken(self, snapshot: Any) -> Response:
        """The answer to `POST snapshot`. snapshot: what the host's reading gave, or the exception that it raised."""
        try:
            if isinstance(snapshot, Refused):
                raise snapshot
            if isinstance(snapshot, BaseException):
                log.warning("a snapshot that was asked for could not be taken", exc_info=snapshot)
                raise Refused(
                    409,
                    "not_taken",
                    f"the service's own reading failed with {type(snapshot).__name__}; its log says more",
                )
            try:
                batch = Batch.of_snapshots([snapshot], len(snapshot.basin_coords))
            except (AttributeError, TypeError, ValueError):
                raise Refused(
                    409,
                    "not_taken",
                    f"the service's own reading gave no snapshot, but a {type(snapshot).__name__}",
                ) from None
            self._flush()
            if self.monitor is not None and (why := self.monitor.unwritten):
                raise Refused(409, "store_unusable", f"the snapshot was taken and could not be stored: {why}")
            return answer(reading.told(batch, basins=False)[0])
        except Refused as refused:
            return refusal(refused)

    def may_stream(self, request: Request) -> Response | None:
        """The answer where there is no stream for this request; None: there is one, see `stream`."""
        try:
            self.access.check(request, "read", self._limits)
            if request.method == "HEAD":
                return Response(200, b"", (("Content-Type", MEDIA), *EVENTS))
        except Refused as refused:
            return refusal(refused)
        return None

    def begin_stream(self, wake: Callable[[], None]) -> Client | Response:
        """A client of the stream, or why there is none now. wake: see `stream.Client`."""
        try:
            return self.stream.join(wake)
        except Refused as refused:
            return refusal(refused)

    def listen(
        self, most: int | None = None, stopping: Callable[[], bool] = lambda: False
    ) -> Iterator[bytes] | Response:
        """The same as what it is sent, for a server that gives each request a thread; see `stream.Stream.listen`."""
        try:
            return self.stream.listen(most, stopping)
        except Refused as refused:
            return refusal(refused)

    # The routes, by name

    def _health(self, request: Request) -> Response:
        reads = self.access.reads(request, self._limits)
        found = self._known_health()
        said = found if reads else Glance(status=found.status, severity=found.severity)
        return answer(said, reading.CODES[found.status])

    def _snapshots(self, request: Request) -> Response:
        query = _query(request, "limit", "since", "skip", "basins")
        limit = _whole(query, "limit", *LIMIT)
        basins = _choice(query, "basins")
        since, skip = _number(query, "since"), _whole(query, "skip", *SKIP)
        self._flush()
        if since is not None:
            return answer(reading.after(self.store, since, limit, basins=basins, skip=skip))
        return answer(reading.newest(self.store, limit, basins=basins))

    def _trends(self, request: Request) -> Response:
        window = _whole(_query(request, "window"), "window", *WINDOW)
        self._flush()
        return self._unchanged.get(
            ("trends", window), RECORDED, lambda: answer(reading.trends(self.store, window))
        )

    def _state(self, _: Request) -> Response:
        self._flush()
        known = None if self.monitor is None else self.monitor.settings
        return self._unchanged.get(
            ("state", None), RECORDED, lambda: answer(reading.state(self.store, known))
        )

    def _heal(self, _: Request) -> Response:
        host = self._host("a healing pass")
        self._rated("heal", self.access.heals_per_minute)
        found = self._known_health()
        if found.healthy:
            why = (
                "healthy: nothing to heal"
                if found.status == "healthy"
                else "; ".join(found.notes) or "learning"
            )
            return answer(Triggered(triggered=False, message=why))
        job = self.jobs.start("heal", ["heal", str(host), f"--store={self.store}", "--json"])
        return answer(Triggered(triggered=True, message="; ".join(found.issues), job=job), 202)

    def _job(self, request: Request) -> Response:
        return answer(self.jobs.get(request.params["id"]))

    def _patches(self, _: Request) -> Response:
        return self._unchanged.get(("patches", None), JUDGED, lambda: answer(judged.patches(self.store)))

    def _patch(self, request: Request) -> Response:
        return answer(judged.detail(self.store, request.params["id"]))

    def _review(self, request: Request) -> Response:
        try:
            review = msgspec.json.decode(request.body, type=ReviewRequest)
            json.loads(request.body, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise Refused(422, "invalid", f"body: {error}") from error
        identity = request.params["id"]
        if judged.reviewable(self.store, identity, review.fingerprint):
            self._host("a review of a change, which merges it,")
        job = self.jobs.start(
            "review",
            [
                "review",
                identity,
                "--approve" if review.approve else "--reject",
                f"--host={self.host or Path('.')}",
                f"--store={self.store}",
                f"--reviewer={review.reviewer}",
                f"--reason={review.reason}",
                "--json",
            ],
        )
        return answer(job, 202)

    def _phase(self, _: Request) -> Response:
        self._flush()
        return self._unchanged.get(
            ("phase", time.time() // PHASE_S), BRAKED, lambda: answer(judged.phase(self.store))
        )

    def _dashboard(self, request: Request) -> Response:
        return self._shown().shell("dashboard", request)

    def _widget(self, request: Request) -> Response:
        return self._shown().shell("widget", request)

    def _asset(self, request: Request) -> Response:
        return self._shown().asset(request.params["file"], request)

    def _openapi(self, _: Request) -> Response:
        from qigheal.api.description import document

        return answer(document(self.prefix))

    # What several of them need

    def _known_health(self) -> Health:
        self._flush()
        round_ = int(time.time() // AGES_S)  # a store that nobody writes any more changes in age alone
        found = self._unchanged.get(("health", round_), RECORDED, lambda: reading.health(self.store))
        if self.monitor is None:
            return found
        last = self.monitor.snapshots[-1].timestamp if len(self.monitor.snapshots) else None
        return reading.beside(found, self.monitor.check_health(), last)

    def _event(self, event: Event) -> object:
        if event == "health":
            return self._known_health()
        try:
            return judged.patches(self.store)
        except Refused as refused:
            return Patches(patches=(), notes=(refused.detail,))

    def _flush(self) -> None:
        if self.monitor is not None:
            self.monitor.flush()

    def _shown(self) -> Pages:
        if self._pages is None:
            raise Refused(404, "not_found", "the dashboard is not installed here")
        return self._pages

    def _pages_open(self, request: Request) -> None:
        if request.permitted is None and not self.access.enabled("read"):
            self.access.check(request, "read", self._limits)  # which says how to enable it

    def _host(self, what: str) -> Path:
        if self.host is None:
            raise Refused(
                403,
                "no_host",
                f"{what} needs the service's repository: name it where the routes are set up (host=)",
            )
        return self.host

    def _rated(self, what: str, most: int) -> None:
        if (wait := self._limits.note(what, most)) > 0:
            raise too_many(f"{most} within a minute", wait)


def _head(made: Response) -> Response:
    return Response(made.status, b"", (*made.headers, ("Content-Length", str(len(made.body)))))


def _once(pairs: list[tuple[str, Any]]) -> None:
    """Of a field given twice, who approves and who reads the log may each mean another value."""
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{', '.join(twice)}: expected once, got several")


def _query(request: Request, *names: str) -> dict[str, str]:
    """The parameters of these names; others are not ours."""
    found: dict[str, str] = {}
    for name, value in request.query:
        if name in names and name in found:
            raise Refused(422, "invalid", f"{name}: expected once, got several")
        if name in names:
            found[name] = value
    return found


def _whole(query: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise Refused(
            422, "invalid", f"{name}: expected a whole number from {least} to {most}, got {text[:64]!r}"
        )
    return int(text)


def _choice(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise Refused(422, "invalid", f"{name}: expected true or false, got {text[:64]!r}")
    return text == "true"


def _number(query: dict[str, str], name: str) -> float | None:
    text = query.get(name)
    if text is None:
        return None
    if (
        re.fullmatch(r"-?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", text, re.ASCII)
        and abs(float(text)) <= MOST_SINCE
    ):
        return float(text)
    raise Refused(422, "invalid", f"{name}: expected Unix seconds within ±{MOST_SINCE:g}, got {text[:64]!r}")
