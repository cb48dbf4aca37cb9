"""The commands that judge what other people made: a diff, or one commit against another.

Exit codes: `evaluate` 0 improved, 1 worse or refused, 2 neither; `compare` 0 better or equal, 1 worse,
2 not to be said. 64 and up where nothing could be judged.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, cast

import typer

from qigcore.regular import read_regular
from qigheal.cli import FINE, NOTHING_TO_SAY, UNHEALTHY, show, show_judged
from qigheal.cli.options import Host, Isolation, Json, Markdown, Pairs, Store, existing, named
from qigheal.errors import PatchError
from qigheal.records import Evaluation
from qigheal.settings import HealSettings, SandboxChoice

MOST_PAIRS = HealSettings().max_pairs
OPENED = (Path("/dev/fd"), Path("/proc/self/fd"))
"""Where the descriptors are that this process was given."""

Patch = Annotated[
    Path, typer.Option("--patch", metavar="FILE", help="The diff, a regular file; - for standard input.")
]


def evaluate(
    patch: Patch,
    host: Host = Path(),
    store: Store = None,
    healthy: Annotated[
        str | None, typer.Option(help="A commit that was healthy: measure it and HEAD with the probe.")
    ] = None,
    heals: Annotated[
        str | None, typer.Option(metavar="A,B", help="Metrics that it is said to heal, and is held to.")
    ] = None,
    same_output: Annotated[
        bool, typer.Option("--same-output", help="It is said to change no output, and is held to that.")
    ] = False,
    pairs: Pairs = MOST_PAIRS,
    sandbox: Isolation = "auto",
    markdown: Markdown = None,
    json: Json = False,
) -> int:
    """Judge somebody else's diff by a trial. Nothing is applied. Exit 0 improved, 1 worse or refused, 2 neither.

    With a store, healthy is what its service learned, and the verdict is kept in its ledger; with --healthy and
    no store, nothing is kept. A diff that is too large, or no diff of UTF-8 text, is an error (64 and up).

    Example: qigheal evaluate ~/src/digits --patch fix.diff --store /var/lib/digits/.qigheal
    """
    from qigheal.healing.engine import SelfHealingEngine
    from qigheal.healing.evaluating import evaluate_without_store
    from qigheal.healing.submission import text_of
    from qigheal.repo import Repo

    show_judged.one_document(markdown, json=json)
    repo = Repo(host)  # a mistyped host is said before a missing store
    diff = text_of(_content(patch), "standard input" if patch == Path("-") else str(patch))
    claims = tuple(name.strip() for name in heals.split(",")) if heals else ()
    settings = HealSettings(sandbox=cast(SandboxChoice, sandbox), max_pairs=pairs)
    on_step = show.silent if json or markdown == Path("-") else show.step
    if store is None and healthy is not None and not named(None).is_dir():
        found = evaluate_without_store(
            repo,
            diff,
            healthy=healthy,
            settings=settings,
            clock=time.time,
            on_step=on_step,
            heals=claims,
            same_output=same_output,
        )
    else:
        engine = SelfHealingEngine(host=host, store=existing(store), settings=settings, on_step=on_step)
        found = engine.evaluate(diff, healthy=healthy, heals=claims, same_output=same_output)
    show_judged.evaluation(found, markdown, json=json)
    if found.verdict.accepted:
        return FINE
    return UNHEALTHY if found.verdict.decision in ("worse", "refused") else NOTHING_TO_SAY


def compare(
    host: Annotated[Path, typer.Argument(help="The service's git repository.")],
    base: Annotated[str, typer.Argument(help="The commit to compare with, with a qigheal.toml.")],
    head: Annotated[str, typer.Argument(help="The commit that is asked about.")],
    store: Annotated[
        Path | None,
        typer.Option(
            "--store", help="Healthy is what this store's service learned; default: as BASE answers."
        ),
    ] = None,
    pairs: Pairs = MOST_PAIRS,
    sandbox: Isolation = "auto",
    markdown: Markdown = None,
    json: Json = False,
) -> int:
    """Is HEAD as healthy as BASE? Exit 0 better or equal, 1 worse, 2 not to be said.

    It cannot be said where HEAD changed the manifest, the probe or the tests: they are measured as in BASE.

    Example: qigheal compare . origin/main HEAD --markdown summary.md
    """
    from qigheal.healing import evaluating
    from qigheal.repo import Repo

    show_judged.one_document(markdown, json=json)
    repo = Repo(host)
    found = evaluating.compare(
        repo,
        base,
        head,
        store=None if store is None else existing(store),
        settings=HealSettings(sandbox=cast(SandboxChoice, sandbox), max_pairs=pairs),
        clock=time.time,
        on_step=show.silent if json or markdown == Path("-") else show.step,
    )
    show_judged.evaluation(found, markdown, json=json)
    return _compared(found)


def _compared(found: Evaluation) -> int:
    verdict = found.verdict
    if (
        found.unmeasured
        or found.notes
        or verdict.decision == "inconclusive"
        or "incomplete" in verdict.vetoes
    ):
        return NOTHING_TO_SAY
    return UNHEALTHY if verdict.decision in ("worse", "refused") else FINE


def _content(patch: Path) -> bytes:
    """A diff's bytes, no more than it takes to see that they are too many.

    What the caller opened for this process, as a shell does for `<(git diff)`, is read like standard input.
    """
    from qigheal.healing.submission import MOST_BYTES

    try:
        if patch == Path("-"):
            if sys.stdin is None:  # as Python has it where descriptor 0 is closed
                raise PatchError(
                    "standard input: expected a diff, got a closed input; pipe one, or name a file"
                )
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        if patch == Path("/dev/stdin") or patch.parent in OPENED:
            with patch.open("rb") as file:
                return file.read(MOST_BYTES + 1)
        return read_regular(patch, MOST_BYTES + 1)
    except OSError as error:
        why = error.strerror or error
        raise PatchError(f"{patch}: cannot be read: {why}; name a file with a diff") from error
