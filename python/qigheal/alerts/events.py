"""What is new since the last look, as alerts. Pure functions: (what was said, what is seen) → (said then, alerts).

The severity of a service has its own hysteresis; here an episode ends only when the service has been well for a
while, and within one only a worse severity is told again. Of the ledger each change of state is told once. No file,
no clock, no address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from qigcore.durations import worded
from qigheal.alerts import words
from qigheal.alerts.limiting import admit, release
from qigheal.alerts.records import Alert, AlertSettings, Episode, Kind, Limit, Note, Said, Weight
from qigheal.alerts.seeing import Seen, Turn
from qigheal.records import FINAL_STATES, SEVERITIES, Change

KEYS: Final = 500
NOTES: Final = 20
"""Ended changes that later alerts may speak of."""

TAKEN_BACK: Final = frozenset({"reverting", "reverted", "rolled_back"})


class Scene(NamedTuple):
    """What every sentence needs: whose service, where its store and its dashboard are, what time it is.

    Times are in Unix seconds.
    """

    service: str
    store: Path
    dashboard: str
    now: float
    begun: float  # when this process first looked
    settings: AlertSettings


def compare(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    """Everything that is to be told now, before any limit, oldest first."""
    alerts: list[Alert] = []
    for compared in (_changes, _phases, _breaker, _waiting, _losses, _silence, _health):
        said, found = compared(said, seen, scene)
        alerts += found
    new = [alert for alert in alerts if alert.key not in said.keys]
    keys = (*said.keys, *(alert.key for alert in new))[-KEYS:]
    unmet = seen.ledger_unread and _unmet(said)
    return replace(said, keys=keys, looked_at=scene.now, ledger_unmet=unmet), new


def _unmet(said: Said) -> bool:
    """Whether what stands in the ledger may be older than the first look."""
    return said.looked_at == 0.0 or said.ledger_unmet


def limited(said: Said, alerts: list[Alert], scene: Scene) -> tuple[Said, list[Alert]]:
    """The same through the rate limit, with what was held back before and has room now."""
    limits = dict(said.limits)
    most, within_s = scene.settings.most, scene.settings.within_s
    out: list[Alert] = []
    for kind, limit in limits.items():
        limits[kind], freed = release(limit, scene.now, most=most, within_s=within_s)
        out += [freed] if freed else []
    for alert in alerts:
        limit = limits.get(alert.kind, Limit())
        limits[alert.kind], passed = admit(limit, alert, scene.now, most=most, within_s=within_s)
        out += [passed] if passed else []
    return replace(said, limits=limits), out


def _alert(
    scene: Scene,
    kind: Kind,
    subject: str,
    onset: float | None,
    severity: Weight,
    title: str,
    *lines: str,
    change: Change | None = None,
    mark: str = "",
) -> Alert:
    """`mark` tells apart, in the key, what begins at the same time and is not the same."""
    state = change.state if change else severity if kind == "degraded" else mark
    link = [f"look at: {scene.dashboard}"] if scene.dashboard else []
    return Alert(
        key=f"{kind}:{subject}:{state}:{'' if onset is None else f'{onset:.6f}'}",
        kind=kind,
        subject=subject,
        severity=severity,
        title=words.titled(scene.service, title),
        lines=(*(words.one_line(line) for line in lines if line), *link),
        at=scene.now,
        service=words.one_line(scene.service, 80),
        since=onset,
        change=change.id if change else "",
        state=change.state if change else "",
    )


def _health(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    report, episode = seen.report, said.episode
    if report is None or report.state == "learning":
        return said, []
    if report.severity == "normal":
        return _well(said, episode, scene) if episode else (said, [])
    told = SEVERITIES.index(episode.severity) if episode else 0
    if episode and SEVERITIES.index(report.severity) <= told:
        return replace(said, episode=replace(episode, clean_since=None)), []
    found = tuple(words.moved(finding) for finding in report.findings)
    onsets = [each.since for each in found if each.since is not None]
    since = episode.since if episode else min(onsets, default=scene.now)
    first = found[0].message if found else "no finding says why"
    title = f"{report.severity}: {first}"
    lines = [*words.findings_lines(found), *_done(said, since, scene)]
    onset = min([each.since for each in found if each.severity == report.severity and each.since] or [since])
    # Its key is of now: a service may fall ill again of what began before it was well.
    alert = _alert(scene, "degraded", "service", scene.now, report.severity, title, *lines)
    alert = replace(alert, since=onset, findings=found)
    return replace(said, episode=Episode(severity=report.severity, since=since, title=alert.title)), [alert]


def _well(said: Said, episode: Episode, scene: Scene) -> tuple[Said, list[Alert]]:
    clean_since = scene.now if episode.clean_since is None else episode.clean_since
    if scene.now - clean_since < scene.settings.recover_after_s:
        return replace(said, episode=replace(episode, clean_since=clean_since)), []
    lasted = worded(max(0.0, clean_since - episode.since))
    alert = _alert(
        scene,
        "recovered",
        "service",
        clean_since,
        "info",
        f"healthy again after {lasted}",
        f"it was: {episode.title}",
        f"since {words.when(episode.since)}, well since {words.when(clean_since)}",
        *_done(said, episode.since, scene),
    )
    return replace(said, episode=None), [alert]


def _done(said: Said, since: float, scene: Scene) -> list[str]:
    """What was done since then, and what waits."""
    if not said.ledger_seq:
        return []
    about = [
        words.change_line(change, note, scene.store)
        for change, note in said.notes.items()
        if note.state not in FINAL_STATES or note.at >= since
    ]
    return about or ["no change of the repository was made or waits"]


def _silence(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    if seen.last_at is None:
        return said, []
    settings = scene.settings
    if said.silent_since is not None and seen.last_at > said.silent_since:
        lasted = worded(max(0.0, seen.last_at - said.silent_since))
        title = f"snapshots come again after {lasted}"
        alert = _alert(scene, "recovered", "monitor", said.silent_since, "info", title)
        return replace(said, silent_since=None), [alert]
    if said.silent_since is not None or seen.interval_s is None:
        return said, []
    patience = max(settings.silent_floor_s, settings.silent_after * seen.interval_s)
    # A service that has been down may just be starting: it is given the time that any other has.
    if scene.now - max(seen.last_at, scene.begun) <= patience:
        return said, []
    alert = _alert(
        scene,
        "silent",
        "monitor",
        seen.last_at,
        "critical",
        f"no snapshot for {worded(scene.now - seen.last_at)}",
        f"the last one came at {words.when(seen.last_at)}; usually one comes every {worded(seen.interval_s)}",
        "the service is down, its telemetry is missing, or its history cannot be written: qigheal history --last 1",
    )
    return replace(said, silent_since=seen.last_at), [alert]


def _losses(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    alerts = []
    grown = {name: count for name, count in seen.damage.items() if count > said.damage.get(name, 0)}
    if grown:
        what = ", ".join(f"{count} {name}" for name, count in grown.items())
        title = f"parts of the history cannot be read: {what}"
        more = "see: qigheal history; a disk or another program may have damaged it"
        alerts.append(_alert(scene, "losses", "history", scene.now, "warning", title, more))
    if seen.losses > said.losses:
        title = f"{seen.losses - said.losses} snapshots could not be written to the history"
        more = "they left the ring before they could be written: is the disk full, or the store read-only?"
        alerts.append(_alert(scene, "losses", "recording", scene.now, "warning", title, more))
    return replace(said, damage=dict(seen.damage), losses=seen.losses), alerts


def _changes(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    """Each state that a change has entered. Of a ledger met for the first time, only what is new is told."""
    notes = {} if seen.anew else dict(said.notes)
    first = _unmet(said)
    alerts = []
    for at, change in seen.steps:
        before = notes.pop(change.id, None)
        begun = before.taken_back if before else None
        begun = (at if begun is None else begun) if change.state in TAKEN_BACK else None
        notes[change.id] = Note(
            state=change.state,
            at=at,
            strategy=change.patch.strategy,
            files=change.patch.files,
            taken_back=begun,
        )
        if not first and not (seen.anew and at <= said.looked_at):
            alerts += _entered(change, at, scene)
    ended = [each for each, note in notes.items() if note.state in FINAL_STATES]
    recent = scene.now - seen.brakes.breaker_window_s
    for each in ended[:-NOTES]:
        if (notes[each].taken_back or 0.0) < recent:
            del notes[each]
    said = replace(said, notes=notes, ledger_seq=seen.ledger_seq, ledger_digest=seen.ledger_digest)
    return said, alerts


def _entered(change: Change, at: float, scene: Scene) -> list[Alert]:
    """The alert that a change in this state is worth, in a list; an empty one for most states."""
    known: dict[str, tuple[Kind, Weight, str]] = {
        "reverting": ("rollback", "critical", "is being taken back: the service got worse"),
        "rolled_back": ("rollback", "info", "was taken back"),
        "contested": ("contested", "critical", "needs a person: it is contested"),
        "unconfirmed": ("unconfirmed", "warning", "is merged, and nothing shows whether it helped"),
    }
    if change.state not in known:
        return []
    kind, severity, what = known[change.state]
    patch = change.patch
    lines = (
        f"why: {change.reason}" if change.reason else "",
        f"what it was for: {patch.rationale}",
        f"files: {', '.join(patch.files)}",
        f"merged as {change.merge_commit[:10]} at {words.when(change.merged_at)}"
        if change.merge_commit
        else "",
        f"taken back by {change.revert_commit[:10]}" if change.revert_commit else "",
        "see: qigheal patches",
    )
    title = f"change {change.id} {what}"
    return [_alert(scene, kind, change.id, at, severity, title, *lines, change=change)]


def _phases(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    """Each move to another phase. Of a ledger met for the first time, only what is new is told."""
    if _unmet(said):
        return said, []
    new = [turn for turn in seen.turns if not (seen.anew and turn.at <= said.looked_at)]
    return said, [_moved(turn, scene) for turn in new if turn.move.before != turn.move.to]


def _moved(turn: Turn, scene: Scene) -> Alert:
    at, move = turn
    by_itself = move.how == "demote"
    how = "through its gate" if move.how == "advance" else f"by {move.how}"
    return _alert(
        scene,
        "phase",
        "healing",
        at,
        "info" if move.how == "advance" else "warning",
        f"the healer went back from phase {move.before} to {move.to}"
        if by_itself
        else f"the healer is in phase {move.to} {how}; it was in {move.before}",
        "" if by_itself else f"by: {move.actor}",
        f"why: {move.reason}" if move.reason else "",
        f"since {words.when(at)}",
        "what it may do now, and what the next gate asks for: qigheal phase status",
        mark=f"{move.before}-{move.to}",
    )


def _waiting(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    """Open changes that nobody has been told of and that the loop has not approved by itself meanwhile."""
    notes = dict(said.notes)
    latest = {step.change.id: step.change for step in seen.steps}
    alerts = []
    for change, note in said.notes.items():
        if note.state != "open" or note.told or scene.now - note.at < scene.settings.review_after_s:
            continue
        notes[change] = replace(note, told=True)
        made = latest.get(change)
        lines = [
            f"what it is for: {made.patch.rationale}" if made else "",
            f"measured: {made.verdict.reason}" if made and made.verdict else "",
            f"files: {', '.join(note.files)}",
            f"open since {words.when(note.at)}",
            words.review_command(change, scene.store),
        ]
        title = f"change {change} ({note.strategy}) waits for a review"
        alert = _alert(scene, "review", change, note.at, "info", title, *lines)
        alerts.append(replace(alert, change=change, state="open"))
    return replace(said, notes=notes), alerts


def _breaker(said: Said, seen: Seen, scene: Scene) -> tuple[Said, list[Alert]]:
    """The rule of the healer's own brake, by its settings, counted from what was read of the ledger."""
    brakes = seen.brakes
    begun = [note.taken_back for note in said.notes.values() if note.taken_back is not None]
    recent = sorted(at for at in begun if at > scene.now - brakes.breaker_window_s)
    is_open = len(recent) >= brakes.breaker_rollbacks
    if not is_open or said.breaker:
        return replace(said, breaker=is_open), []
    many = "1 change was" if len(recent) == 1 else f"{len(recent)} changes were"
    alert = _alert(
        scene,
        "breaker",
        "healing",
        recent[-1],
        "critical",
        f"healing has stopped: {many} taken back within {worded(brakes.breaker_window_s)}",
        f"until {words.when(recent[-brakes.breaker_rollbacks] + brakes.breaker_window_s)} no change is made",
        "see what was taken back and why: qigheal patches; then: qigheal phase status",
    )
    return replace(said, breaker=True), [alert]
