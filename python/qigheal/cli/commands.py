"""The commands: each reads its arguments, asks the layer below, and hands the answer to `show`.

What is measured, decided or written is decided below; nothing here knows a formula.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from qigcore.errors import HistoryError, InvalidLimit
from qigcore.history import History
from qigcore.history.export import check_asked
from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY, glance, show
from qigheal.cli.options import Host, HostOption, Json, StateDir, Store, asked, length
from qigheal.cli.options import existing as _existing
from qigheal.cli.options import named as _store
from qigheal.moments import moment
from qigheal.settings import HealSettings, SandboxChoice, operator

if TYPE_CHECKING:
    from qigheal.records import HealResult

Format = Literal["parquet", "arrow", "feather", "csv", "json"]
MERGED = ("merged", "watching", "confirmed", "unconfirmed")
"""States of a change that was merged and stands."""


def _moment(text: str) -> float:
    """A time as a person types it, as `moment` reads it."""
    try:
        return moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def status(store: Store = None, state_dir: StateDir = None, json: Json = False) -> int:
    """Is the service healthy? Exit 0 healthy, 1 not, 2 too few snapshots to say.

    Example: qigheal status --store /var/lib/digits/.qigheal
    """
    return glance.status(glance.Asked(store, state_dir, json))


def trends(
    store: Store = None,
    window: Annotated[int, typer.Option(help="Snapshots to look back over.", min=10)] = 50,
    state_dir: StateDir = None,
    json: Json = False,
) -> int:
    """Where Φ, κ, drift, latency, errors and memory are heading, and when what degrades is at its limit.

    Example: qigheal trends --window 200
    """
    found = glance.standing(store, state_dir).trends(window, show.METRIC_NAMES)
    show.trends(found, json=json)
    return NOTHING_TO_SAY if all(t.direction == "unknown" for t in found.values()) else FINE


def history(
    store: Store = None,
    last: Annotated[int, typer.Option(help="Snapshots to show, newest last.", min=1)] = 20,
    state_dir: StateDir = None,
    json: Json = False,
) -> int:
    """The newest snapshots, and which processes wrote them.

    Example: qigheal history --last 5 --json
    """
    read = glance.standing(store, state_dir).last(last)
    show.history(read.batch, read.segments, read.damage, json=json)
    return FINE if len(read.batch) else NOTHING_TO_SAY


def export(
    file: Annotated[
        Path,
        typer.Argument(
            help="The file to write, for this user alone; one that is there is replaced in one step, and its mode kept."
        ),
    ],
    store: Store = None,
    format: Annotated[
        str | None, typer.Option(help="parquet, arrow, feather, csv or json; default: the file's suffix.")
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(
            parser=_moment,
            metavar="TIME",
            help="From then on: ISO 8601 (20260131 is a date too) or Unix seconds.",
        ),
    ] = None,
    end: Annotated[
        float | None, typer.Option(parser=_moment, metavar="TIME", help="Until then, and not then itself.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these, in this order; default all.")
    ] = None,
    json: Json = False,
) -> int:
    """Write the history to one file: Parquet, Arrow, CSV, or the JSON of the earlier modules. Exit 2 if empty.

    Example: qigheal export january.parquet --start 2026-01-01 --end 2026-02-01
    """
    chosen = None if columns is None else [name.strip() for name in columns.split(",")]
    with asked(HistoryError):
        check_asked(file, format, chosen)
    with History.read_only(_store(store)) as opened:
        kind = cast(Format | None, format)
        rows = opened.export(file, format=kind, start=start, end=end, columns=chosen)
        show.exported(file, rows, opened.damage, json=json)
    return FINE if rows else NOTHING_TO_SAY


def import_(
    file: Annotated[Path, typer.Argument(help="The JSON that save_history() or the earlier modules wrote.")],
    store: Store = None,
    json: Json = False,
) -> int:
    """Store the snapshots of a history file, but those that are there already. Exit 2 if it has none.

    All of them or, on an error, none. The times in such a file are local: import it where it was written.
    A store that does not exist is made.

    Example: qigheal import monitor_history.json --store /var/lib/digits/.qigheal
    """
    from qigheal.importing import import_file

    done = import_file(file, _store(store))
    show.imported(file, done, json=json)
    return FINE if done.snapshots else NOTHING_TO_SAY


def compact(
    store: Store = None,
    keep_days: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="First remove what is older than N days.")
    ] = None,
    keep_mb: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="First remove the oldest beyond N megabytes.")
    ] = None,
    json: Json = False,
) -> int:
    """Make few files of many small ones that services left; the history stays the same, and may be in use.

    Without --keep-days and --keep-mb nothing is removed from it. What an import brought is one file, and goes
    as one, when the newest of it is too old. Exit 2 where there is nothing. Files that were replaced go with the next
    call after ten minutes, since somebody may be reading them.

    Example: qigheal compact --keep-days 90
    """
    place = _existing(store)
    with History.read_only(place) as found:
        if not found.segments():  # nothing may be written into a folder that may be no store
            show.nothing_to_compact(place, json=json)
            return NOTHING_TO_SAY
        dim, geometry = found.dim, found.geometry
    with History(place, dim=dim, geometry=geometry) as opened:
        expired = opened.expire(
            keep_s=None if keep_days is None else keep_days * 86_400,
            keep_bytes=None if keep_mb is None else keep_mb * 1e6,
        )
        show.compacted(expired, opened.compact(), json=json)
    return FINE


def heal(
    host: Host = Path(),
    store: Store = None,
    healthy: Annotated[
        str | None, typer.Option(help="A commit that was healthy: measure it and HEAD with the probe.")
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="Try only this strategy.")] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Merge an accepted patch now: a logged override for this run.")
    ] = False,
    sandbox: Annotated[
        str,
        typer.Option(
            help="auto, namespaces, partial (no bubblewrap), or none (no isolation: only for code you trust)."
        ),
    ] = "auto",
    every: Annotated[
        str | None,
        typer.Option(
            parser=length,
            metavar="TIME",
            help="Go on with a pass every so often, as 5m or 90s, until ended; --json then prints one line a pass.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", help="All reasons why there is no patch, and the log on standard error."),
    ] = False,
    with_parent: Annotated[int | None, typer.Option(metavar="PID", hidden=True)] = None,
    json: Json = False,
) -> int:
    """Diagnose, propose a patch, measure it against the unpatched code, and open a change.

    Where no strategy has a patch that helps, a line for each says why: what the manifest does not declare, what
    could not be proved, how a trial ended.

    Example: qigheal heal ~/src/digits --store /var/lib/digits/.qigheal

    Beside a service: qigheal heal ~/src/digits --store /var/lib/digits/.qigheal --every 5m
    """
    from qigheal.cli.heal_loop import heal_every, refuse
    from qigheal.cli.logged import log_to_stderr
    from qigheal.healing.engine import SelfHealingEngine
    from qigheal.healing.leaving import going_by
    from qigheal.healing.measuring import silent
    from qigheal.host import Manifest
    from qigheal.repo import Repo

    with asked(InvalidLimit):
        isolation = HealSettings(sandbox=cast(SandboxChoice, sandbox)).sandbox
    repo = Repo(host)  # a mistyped host is said before a missing store
    place = _store(store) if healthy is not None or every is not None else _existing(store)
    options = f"--host {shlex.quote(str(host))}"
    options += "" if store is None else f" --store {shlex.quote(str(store))}"

    if verbose:
        log_to_stderr()

    def one_pass() -> HealResult:
        # A loop goes by what is declared now, a pass typed beside it by what the loop goes by.
        declared = None if every is None else going_by(Manifest.at(repo, repo.head()), None)
        engine = SelfHealingEngine(
            host=host,
            store=place,
            auto_apply=apply,
            sandbox=isolation,
            settings=declared,
            on_step=silent if json else show.step,
        )
        # A loop that measures until it comes out well has proved nothing.
        return engine.check_and_heal(healthy=healthy, strategy=strategy, again=every is None)

    if every is not None:
        refuse(apply=apply, healthy=healthy)
        heal_every(every, one_pass, place, options, parent=with_parent, json=json, verbose=verbose)
    result = one_pass()
    show.healed(result, options, json=json, verbose=verbose)
    if not result.triggered:
        return FINE
    states = {change.state for change in result.changes}
    return FINE if states & {"watching", "confirmed"} else UNHEALTHY if not states else NOTHING_TO_SAY


def review(
    change: Annotated[
        str, typer.Argument(help="The id of a change or of a measured patch, or its first digits.")
    ],
    approve: Annotated[bool, typer.Option("--approve", help="Merge it.")] = False,
    reject: Annotated[bool, typer.Option("--reject", help="Close it for good.")] = False,
    host: HostOption = Path(),
    store: Store = None,
    reviewer: Annotated[str | None, typer.Option(help="Who reviews; default: the user.")] = None,
    reason: Annotated[str, typer.Option(help="Why; kept in the ledger.")] = "",
    json: Json = False,
) -> int:
    """Approve a change (it is merged and deployed at once) or reject it. Exit 2 if an approved one is not merged.

    Of a patch that was only measured, the word is kept and counted (qigheal phase status); nothing is merged.

    Example: qigheal review 3f2a --approve --host ~/src/digits
    """
    from qigheal.cli import show_phase
    from qigheal.healing.engine import SelfHealingEngine
    from qigheal.healing.ledger import Ledger
    from qigheal.healing.reviewing import measured_only, review_measured

    if approve == reject:
        raise typer.BadParameter(
            f"expected one of --approve and --reject, got {'both' if approve else 'none'}"
        )
    ledger, by = Ledger(_existing(store) / "ledger.db"), reviewer or operator()
    if (patch := measured_only(ledger, change)) is not None:
        word = review_measured(ledger, patch, approve=approve, reviewer=by, reason=reason, at=time.time())
        show_phase.reviewed(patch, word, json=json)
        return FINE
    engine = SelfHealingEngine(host=host, store=_existing(store), on_step=show.silent if json else show.step)
    changed = engine.review(change, approve=approve, reviewer=by, reason=reason)
    show.change(changed, json=json)
    return NOTHING_TO_SAY if approve and changed.state not in MERGED else FINE


def demo(
    fault_temperature: Annotated[
        float, typer.Option(help="The attention temperature that the bad deploy sets.", min=1e-3, max=1e6)
    ] = 5.0,
    folder: Annotated[
        Path, typer.Option("--output", help="Where demo-report.json and demo-report.png are written.")
    ] = Path(),
    json: Json = False,
) -> int:
    """The whole story on a real small service: a fault found, healed, merged, watched; a bad change undone.

    Example: qigheal demo --fault-temperature 30
    """
    from qigheal.demo.story import tell

    report = tell(
        fault_temperature=fault_temperature, folder=folder, say=show.silent_line if json else show.line
    )
    if json:
        show.document(report)
    return FINE
