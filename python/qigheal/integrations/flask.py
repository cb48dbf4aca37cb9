"""Self-healing for a Flask application, in one call that can be taken back.

    handle = setup_self_healing(app)        # where the application is made, before its first request

What is recorded and who heals is decided in `hosting`; the routes are those of `flask_routes`. Here is only how
they get into an application and out again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from qigheal.api import PREFIX
from qigheal.errors import MissingExtra
from qigheal.integrations.web.hosting import (
    TELEMETRY_TIMEOUT_S,
    Heal,
    HostLimits,
    SelfHealing,
    SetupError,
    Telemetry,
)
from qigheal.integrations.web.hosting import (
    host as hosted,
)
from qigheal.integrations.web.wsgi import MeasuredWsgi
from qigheal.monitor import GeometricHealthMonitor
from qigheal.settings import Geometry

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from qigheal.alerts import Sink

EXTENSION = "qigheal"
"""The handle stands in `app.extensions` under this name while it is there."""


def setup_self_healing(
    app: Flask,
    *,
    store: str | os.PathLike[str] | None = None,
    geometry: Geometry = "sphere",
    telemetry: Telemetry = None,
    monitor: GeometricHealthMonitor | None = None,
    every_s: float | None = 60.0,
    host: str | os.PathLike[str] | None = None,
    heal: Heal | None = "subprocess",
    heal_every_s: float = 300.0,
    authorize: Callable[..., Any] | None = None,
    prefix: str = PREFIX,
    streams: int = 2,
    alerts: Sequence[Sink] = (),
    widget_ancestors: str = "'self'",
    telemetry_timeout_s: float = TELEMETRY_TIMEOUT_S,
    **limits: Unpack[HostLimits],
) -> SelfHealing:
    """Record, measure and show the application's health from now on; `close()` of what is returned ends it.

    The arguments are those of `qigheal.integrations.fastapi.setup_self_healing`. Here `app.gary_telemetry`,
    else `app.extensions["gary_telemetry"]` is read; async callables run in the ticker's thread, and `authorize`
    is a plain function without arguments that returns True where the present request may read; anything else refuses.
    streams: live streams at once in a process, each of which takes one of the server's threads; 0: the pages ask now
    and then instead.

    Recording begins at once. A process that forks afterwards and serves no request, as the one that
    gunicorn's --preload loads an application in, records nothing, nor does the parent of Flask's reloader.

    Raises SetupError when it is there already, after the first request, of an application with
    host_matching, or where arguments do not go together.
    """
    try:
        import flask  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "flask", "flask", "self-healing of a Flask application") from error

    if EXTENSION in app.extensions:
        raise SetupError(
            "app: expected an application without self-healing, got one that has it already; close() the handle "
            f"in app.extensions[{EXTENSION!r}] first"
        )
    if getattr(app, "_got_first_request", False):
        raise SetupError(
            "app: expected one that has answered no request yet, for Flask takes no routes after that; call "
            "setup_self_healing where the application is made"
        )
    handle = hosted(
        app,
        prefix,
        (
            ("app.gary_telemetry", lambda: getattr(app, "gary_telemetry", None)),
            ('app.extensions["gary_telemetry"]', lambda: app.extensions.get("gary_telemetry")),
        ),
        store=store,
        geometry=geometry,
        telemetry=telemetry,
        telemetry_timeout_s=telemetry_timeout_s,
        monitor=monitor,
        every_s=every_s,
        repo=host,
        heal=heal,
        heal_every_s=heal_every_s,
        alerts=alerts,
        widget_ancestors=widget_ancestors,
        asleep=lambda: app.debug and os.environ.get("WERKZEUG_RUN_MAIN") != "true",
        limits=limits,
    )
    try:
        app.extensions[EXTENSION] = handle
        handle.undone_by(lambda: app.extensions.pop(EXTENSION, None))
        _add_routes(app, handle, host, authorize, prefix, streams, widget_ancestors)
        _measure(app, handle, prefix)
        handle.start()
    except BaseException:
        handle.close()
        raise
    return handle


def _measure(app: Flask, handle: SelfHealing, prefix: str) -> None:
    own = vars(app).get("wsgi_app")
    measured = MeasuredWsgi(app.wsgi_app, handle.meter, prefix, first=handle.start)
    app.wsgi_app = measured  # type: ignore[method-assign]

    def restore() -> None:
        measured.stop()  # what runs in it now, or has been wrapped once more, goes through it untouched
        if app.wsgi_app is measured:
            if own is None:
                del app.wsgi_app
            else:
                app.wsgi_app = own  # type: ignore[method-assign]

    handle.undone_by(restore)


def _add_routes(
    app: Flask,
    handle: SelfHealing,
    repo: str | os.PathLike[str] | None,
    authorize: Callable[..., Any] | None,
    prefix: str,
    streams: int,
    widget_ancestors: str,
) -> None:
    from qigheal.api import Api
    from qigheal.integrations.flask_routes import blueprint as routes_of

    api = Api(
        handle.store,
        host=None if repo is None else Path(repo),
        take_snapshot=handle.take_asked,
        monitor=handle.monitor,
        prefix=prefix,
        widget_ancestors=widget_ancestors,
    )
    handle.undone_by(api.close)
    added = routes_of(api, authorize, streams=streams)
    handle.undone_by(lambda: _remove(app, added))
    app.register_blueprint(added)


def _remove(app: Flask, blueprint: Blueprint) -> None:
    """Flask has no way to take a blueprint out: its entries are taken out of the tables that it was put into."""
    from werkzeug.routing.matcher import StateMachineMatcher

    name = blueprint.name
    app.blueprints.pop(name, None)
    for endpoint in [each for each in app.view_functions if each.startswith(f"{name}.")]:
        del app.view_functions[endpoint]
    for table in (
        app.before_request_funcs,
        app.after_request_funcs,
        app.teardown_request_funcs,
        app.template_context_processors,
        app.url_value_preprocessors,
        app.url_default_functions,
        app.error_handler_spec,
    ):
        table.pop(name, None)
    rules = app.url_map
    kept = [rule for rule in rules.iter_rules() if not str(rule.endpoint).startswith(f"{name}.")]
    matcher = StateMachineMatcher(rules.merge_slashes)
    for rule in kept:
        if not rule.build_only:
            matcher.add(rule)
    for endpoint in [each for each in rules._rules_by_endpoint if str(each).startswith(f"{name}.")]:
        del rules._rules_by_endpoint[endpoint]
    rules._matcher = matcher
    rules._remap = True
