"""The command line. Exit codes: 0 fine, 1 unhealthy or worse, 2 nothing to say, 64 and up errors.

`main` is the entry point; `app` lists the commands, `commands` and its neighbours hold them, `show` what they print.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys

from qigheal.cli import ending
from qigheal.errors import MissingExtra

FINE, UNHEALTHY, NOTHING_TO_SAY = 0, 1, 2
USAGE = 64
ENVIRONMENT = 69
INTERRUPTED = 130


def main() -> None:
    """Run one command and exit; an error is one line on standard error, with its remedy."""
    _outputs()
    try:
        import rich.console  # noqa: F401  # whether the extra is there
    except ImportError as error:
        print(f"qigheal: {MissingExtra(error.name or 'rich', 'cli', 'the command line')}", file=sys.stderr)
        sys.exit(ENVIRONMENT)

    from qigcore.errors import QigcoreError
    from qigheal.errors import QighealError

    # A locale without Greek gets Φ as \u03a6, which JSON allows too.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    ending.on_signals()
    try:
        code = _run()
    except KeyboardInterrupt:
        print(
            "qigheal: interrupted; what was begun stands in the ledger and goes on next time", file=sys.stderr
        )
        sys.exit(INTERRUPTED)
    except SystemExit as end:
        # rich and typer end a command whose reader went away with 1, which here means unhealthy.
        if end.code == 1:
            _leave_stdout()
            sys.exit(INTERRUPTED)
        raise
    except OSError as error:
        _leave_stdout()
        if isinstance(error, FileNotFoundError) and error.filename is None:
            what = "the working folder was removed; change to one that is there"
        elif error.filename is None:
            what = f"{error.strerror or error}; is the disk full, or the output closed?"
        else:
            what = f"{error.filename}: {error.strerror}; see that it is there and that this user may use it"
        print(f"qigheal: {' '.join(what.split())}", file=sys.stderr)
        sys.exit(ENVIRONMENT)
    except (QighealError, QigcoreError) as error:
        from qigheal.cli.show import plain

        print(f"qigheal: {plain(' '.join(str(error).split()))}", file=sys.stderr)
        sys.exit(ENVIRONMENT)
    try:
        sys.stdout.flush()
    except OSError as error:
        _leave_stdout()
        print(f"qigheal: the output could not be written: {error.strerror}", file=sys.stderr)
        sys.exit(ENVIRONMENT)
    sys.exit(code if isinstance(code, int) else FINE)


def _outputs() -> None:
    """See that both are open."""
    if (
        sys.stderr is None
    ):  # the next file that is opened must not take its number, and get what is said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # it stays open
    if sys.stdout is None:
        print(
            "qigheal: expected a standard output, got a closed one; send it to /dev/null if nobody reads it",
            file=sys.stderr,
        )
        sys.exit(ENVIRONMENT)


def _run() -> object:
    """What the command gives: its exit code, or None."""
    from qigheal.cli.glance import nameless, plainly_asked, status

    if empty := nameless(sys.argv[1:]):
        print(
            f"qigheal: {empty}: expected a folder, got an empty name (see: qigheal --help)", file=sys.stderr
        )
        sys.exit(USAGE)
    if (asked := plainly_asked(sys.argv[1:])) is not None:
        return status(asked)
    try:
        import typer
    except ImportError as error:
        raise MissingExtra(error.name or "typer", "cli", "the command line") from error

    from qigheal.cli.app import WHERE, app

    # typer does not export the class of usage errors, only this child of it.
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]
    try:
        code = typer.main.get_command(app)(standalone_mode=False, prog_name="qigheal")
    except usage_error as error:
        from qigheal.cli.show import plain

        message = error.format_message() if hasattr(error, "format_message") else str(error)
        context = getattr(error, "ctx", None)
        help_of = "qigheal" if context is None else context.command_path
        if context is None and sys.argv[1] in WHERE:  # the reader of options does not say whose it reads
            help_of = f"qigheal {sys.argv[1]}"
        what = f"{plain(' '.join(message.split()))} (see: {help_of} --help)" if message else "which command?"
        print(f"qigheal: {what}", file=sys.stderr)
        sys.exit(USAGE)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if code == INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return code


def _leave_stdout() -> None:
    """Nothing more can be written there; without this Python would try once more at its end."""
    with contextlib.suppress(io.UnsupportedOperation):  # it was replaced by something that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
