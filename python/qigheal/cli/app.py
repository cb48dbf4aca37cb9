"""The list of all commands, and what stands before any of them.

Each command's module is named here and loaded when it is asked for; see `ondemand`.
"""

from __future__ import annotations

from typing import Annotated, Final

import typer

from qigheal.cli.ondemand import on_demand

WHERE: Final = {
    "status": "commands:status",
    "watch": "watch_command:watch",
    "trends": "commands:trends",
    "history": "commands:history",
    "baseline": "baseline_commands:baseline_app",
    "backtest": "backtest_command:backtest",
    "heal": "commands:heal",
    "patches": "patch_commands:patch_app",
    "review": "commands:review",
    "phase": "phase_commands:phase_app",
    "compare": "judge_commands:compare",
    "evaluate": "judge_commands:evaluate",
    "serve": "serve_command:serve",
    "roi": "roi_command:roi",
    "export": "commands:export",
    "import": "commands:import_",
    "compact": "commands:compact",
    "doctor": "doctor_command:doctor",
    "demo": "commands:demo",
}
"""By name, in the order of `--help`: the module in this package, and the function or group in it."""

app = typer.Typer(
    name="qigheal",
    help="Watches a service, says when healthy is gone, and repairs its repository with measured patches.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    cls=on_demand({name: f"qigheal.cli.{place}" for name, place in WHERE.items()}),
)


def _version(asked: bool) -> None:
    if asked:
        from qigheal.cli import show

        try:
            from qigheal import __version__ as version
        except ImportError:
            version = "(run from its source, not installed)"
        show.line(f"qigheal {version}")
        raise typer.Exit


@app.callback(epilog="Example: qigheal status --store /var/lib/digits/.qigheal")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Nothing by itself: its option is served while it is read."""
