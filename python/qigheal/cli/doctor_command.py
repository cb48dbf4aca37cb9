"""`qigheal doctor`: looks at the machine, the store and the host, and says what is wrong and what to do."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY, show_doctor
from qigheal.cli.options import Json, Store, named


def doctor(
    store: Store = None,
    host: Annotated[
        Path | None, typer.Option("--host", help="Also look at this service's git repository.")
    ] = None,
    send_test_alert: Annotated[
        bool,
        typer.Option("--send-test-alert", help="Also send a test alert to every sink of the environment."),
    ] = False,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="With --host: start neither its probe nor its tests."),
    ] = False,
    json: Json = False,
) -> int:
    """Is everything here as it should be? Exit 0 yes, 1 something fails, 2 warnings only. Nothing is changed.

    Looks at versions, the compiled core, extras, isolation, clock and environment; at the store, its permissions,
    damage, writers, size, baseline, ledger and healer; with --host at the repository, its manifest, and whether the
    levers, files, probe and tests that it names are in the commit. The probe is then started for an answer and the
    tests are run once, in the sandbox and with the limits of a trial; --quick leaves both out. Each line that is not
    ok says what to do. Without --store, a default store that is not there is passed over. Nothing is sent unless
    --send-test-alert asks for it.

    Example: qigheal doctor --store /var/lib/digits/.qigheal --host ~/src/digits
    """
    from qigheal.cli import checks
    from qigheal.cli.checks import alerting, machine
    from qigheal.cli.checks import store as stored

    began = time.time(), time.monotonic()
    place = named(store)
    looks: list[tuple[str, checks.Look]] = [
        ("versions", machine.versions),
        ("compiled core", machine.compiled),
        ("extras", partial(machine.extras, healing=host is not None)),
        ("sandbox", partial(machine.sandbox, needed=host is not None)),
        ("environment", machine.environment),
        ("alerts", alerting.delivered if send_test_alert else alerting.configured),
    ]
    if store is not None or place.exists():
        looks.append(("store", partial(stored.folder, place)))
        if place.is_dir():
            looks += [
                ("snapshots", partial(stored.contents, place)),
                ("baseline", partial(stored.baseline, place)),
                ("ledger", partial(stored.ledger, place)),
                ("healer", partial(stored.healer, place)),
                ("healer settings", partial(stored.healer_settings, place)),
            ]
    if host is not None:
        from qigheal.cli.checks.host import committed, manifest, usable

        looks.append(("host", partial(manifest, host)))
        there = usable(host)
        if there:
            looks.append(("manifest", partial(committed, host)))
        if there and not quick:
            from qigheal.cli.checks import rehearsal

            looks += [("probe", partial(rehearsal.probe, host)), ("tests", partial(rehearsal.tests, host))]
    looks.append(("clock", partial(machine.clock, began)))
    found = [*checks.looked_at(looks)]
    show_doctor.report(found, json=json)
    return {"ok": FINE, "warn": NOTHING_TO_SAY, "fail": UNHEALTHY}[checks.worst(found)]
