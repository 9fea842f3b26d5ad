"""A group of commands that imports a command's module when it is needed.

A process that is killed serves again only after its imports. A worker that imported every command
would take twice as long.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class Lazy:
    """Where a command is: a module and its attribute, a function or a Typer."""

    module: str
    attribute: str = "app"
    hidden: bool = False
    #: Passed to `Typer.command` for a function.
    options: Mapping[str, Any] = field(default_factory=dict)

    def load(self, name: str) -> Any:
        """Import the module and make the command of that name."""
        target = getattr(import_module(self.module), self.attribute)
        if isinstance(target, typer.Typer):
            command: Any = get_group(target)
        else:
            single = typer.Typer(add_completion=False)
            single.command(**self.options)(target)
            command = get_command(single)
        command.name = name
        command.hidden = self.hidden
        return command


def lazy_group(commands: Mapping[str, Lazy]) -> type[TyperGroup]:
    """Make the class of a group that loads each of these commands when it is needed."""

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            lazy = commands.get(cmd_name)
            return None if lazy is None else lazy.load(cmd_name)

    return LazyGroup
