"""Commands whose modules are loaded when they are named, so that one command does not pay for all the others.

Knows names and modules, and no command's arguments. `--help` and completion load what they list.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


class Commands(MutableMapping[str, Any]):
    """Commands by name, in the order in which they are listed. `elsewhere`: "module:name" of each not yet loaded."""

    def __init__(self, elsewhere: dict[str, str], loaded: MutableMapping[str, Any]) -> None:
        self._elsewhere = elsewhere
        self._loaded = dict(loaded)

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            module, _, attribute = self._elsewhere[name].partition(":")
            self._loaded[name] = built(name, getattr(import_module(module), attribute))
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._elsewhere
        yield from (name for name in self._loaded if name not in self._elsewhere)

    def __len__(self) -> int:
        return len(self._elsewhere.keys() | self._loaded.keys())


def built(name: str, found: Any) -> Any:
    """What typer makes of a function, or of a group of commands."""
    group = found
    if not isinstance(found, typer.Typer):
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name)(found)
    command = typer.main.get_command(group)
    command.name = name
    return command


def on_demand(elsewhere: dict[str, str]) -> type[TyperGroup]:
    """A group that also has the commands which stand `elsewhere`: by name, "module:name"."""

    class OnDemand(TyperGroup):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.commands = Commands(elsewhere, self.commands)

    return OnDemand
