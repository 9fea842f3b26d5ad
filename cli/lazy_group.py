"""A group of commands that imports a command's module when it is invoked.

A process that is killed serves again only after its imports. A worker that imported every command
would take twice as long. A group shows its help without an import, because it has the help texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True)
class LazyCommand:
    """The place of a command: a module and its attribute, a function or a Typer."""

    #: The first paragraph of the command's own help.
    help: str
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
        return command


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """Make the class of a group that loads one of these commands when it is invoked."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = {
                name: TyperCommand(name, help=lazy.help, hidden=lazy.hidden)
                for name, lazy in commands.items()
            }

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, _, rest = super().resolve_command(ctx, args)
            return name, commands[str(name)].load(str(name)), rest

    return LazyGroup
