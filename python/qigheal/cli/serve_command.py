"""`qigheal serve`: the sidecar over a store. Reads its arguments, says what is enabled, and runs it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from qigheal.api import PREFIX
from qigheal.api.access import HOLDING, VARIABLES, Access
from qigheal.api.exchange import Right
from qigheal.api.pages import ANCESTORS
from qigheal.cli import FINE, show
from qigheal.cli.options import Store, existing, length


def _public(text: str) -> str:
    """An address that a browser can open, without the slash at its end."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = None
    if not known or "@" in parts.netloc or parts.query or parts.fragment or not text.isascii():
        raise typer.BadParameter(f"expected an address as https://digits.example.org, got {text}")
    if not text.isprintable() or any(each in text for each in ' "<>\\'):
        raise typer.BadParameter("expected an address of printable characters without spaces and quotes")
    return text.rstrip("/")


def _sites(text: str) -> str:
    """Who may frame the widget, as frame-ancestors of a Content-Security-Policy has it."""
    if not ANCESTORS.fullmatch(text):
        raise typer.BadParameter(
            f"expected sites as https://status.example.org, divided by a space, got {text!r}"
        )
    return text


def serve(
    host: Annotated[
        Path | None,
        typer.Argument(
            help="The service's git repository: without it no healing is started and nothing merged."
        ),
    ] = None,
    store: Store = None,
    bind: Annotated[
        str, typer.Option("--bind", metavar="ADDRESS", help="Where to listen; 0.0.0.0 for all addresses.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8642,
    heal: Annotated[
        bool, typer.Option("--heal", help="Also heal HOST, in a process of its own, as its phase allows.")
    ] = False,
    heal_every: Annotated[
        str, typer.Option(parser=length, metavar="TIME", help="With --heal: from one pass to the next.")
    ] = "5m",
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Also send alerts, to the log and where the environment says.")
    ] = False,
    public_url: Annotated[
        str | None,
        typer.Option(
            parser=_public,
            metavar="URL",
            help="Where others reach this, for links in alerts; default: the address, or the machine's name.",
        ),
    ] = None,
    widget_ancestors: Annotated[
        str,
        typer.Option(
            parser=_sites,
            metavar="SITES",
            help="Sites that may show the widget in a frame, divided by spaces, as https://status.example.org.",
        ),
    ] = "'self'",
) -> int:
    """The sidecar beside a service: web interface, dashboard and metrics over its store, until it is ended.

    Tokens come from the environment: QIGHEAL_READ_TOKEN reads, QIGHEAL_TOKEN starts healing, QIGHEAL_REVIEW_TOKEN
    reviews. /metrics is open, as of every exporter, to whoever reaches the address, which is this machine alone
    unless --bind says otherwise; another one is refused without a token that guards the rest.

    Exit 0 when it is told to end (SIGTERM, SIGHUP, Ctrl-C), and all that it started ends with it; 64 and up when it
    cannot be started. A healer that ends is started again, and waits while another one works for the store.

    Example: qigheal serve ~/src/digits --store /var/lib/digits/.qigheal --heal --alerts
    """
    from qigheal.cli import sidecar

    access = Access()
    if heal and host is None:
        raise typer.BadParameter("--heal needs the repository to heal: qigheal serve HOST --heal")
    if not sidecar.loopback(bind) and not access.enabled("read"):
        raise typer.BadParameter(
            f"--bind {bind}: expected {VARIABLES['read']} in the environment for an address that others reach, "
            "got none; set it, or listen at 127.0.0.1"
        )
    place = existing(store)
    if host is not None:
        from qigheal.host import Manifest
        from qigheal.repo import Repo

        Repo(host)
        Manifest.load(host)
    app = sidecar.application(place, host, access, widget_ancestors)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    with contextlib.ExitStack() as running:
        running.callback(sidecar.end_children)
        listening = running.enter_context(sidecar.bound(bind, port))
        url = sidecar.url_of(listening)
        watched = ""
        if alerts:
            from qigheal.alerts import AlertWatch, sinks_from_environment

            sinks = sinks_from_environment()
            public = public_url or sidecar.reached(listening)
            running.enter_context(AlertWatch(place, sinks, dashboard=f"{public}{PREFIX}/dashboard"))
            watched = ", ".join(sink.name for sink in sinks)
        healer = None
        if heal and host is not None:
            healer = running.enter_context(sidecar.Healer(host, place, heal_every, _complain))
        _say(place, url, access, host, watched)
        said = "off; on with HOST and --heal"
        if healer is not None:
            said = f"every {heal_every} in process {healer.pid}" if healer.pid else "by another healer now"
        show.line(f"  healing    {said}")
        sys.stdout.flush()
        sidecar.run(app, listening, healer.ended if healer else lambda: False)
    return FINE if healer is None or healer.failed is None else healer.failed


def _say(place: Path, url: str, access: Access, host: Path | None, alerts: str) -> None:
    def by(right: Right, what: str) -> str:
        names = [VARIABLES[held] for held in HOLDING[right] if os.environ.get(VARIABLES[held], "").strip()]
        return f"{what} by {' or '.join(names)}" if names else f"{what} off: {VARIABLES[right]} is not set"

    asks = "asks for the token" if access.enabled("read") else f"off: {VARIABLES['read']} is not set"
    repository = "" if host is not None else "; both need HOST"
    show.line(f"qigheal serves {place} at {url}")
    show.line(f"  dashboard  {url}{PREFIX}/dashboard, {asks}")
    show.line(f"  routes     {url}{PREFIX}: {by('read', 'reading')}")
    show.line(f"             {by('heal', 'healing')}; {by('review', 'reviews')}{repository}")
    show.line(f"  metrics    {url}/metrics, open to whoever reaches this address")
    show.line(f"  alerts     {f'to {alerts}' if alerts else 'off; on with --alerts'}")


def _complain(text: str) -> None:
    print(f"qigheal: {show.plain(text)}", file=sys.stderr, flush=True)
