"""Options and arguments that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print data instead of a table.")]
Why = Annotated[str, typer.Option("--why", help="The reason; it is kept in the history.")]
WhyIfChanged = Annotated[str, typer.Option("--why", help="The reason; required for a change.")]
By = Annotated[str, typer.Option("--by", help="The operator's name.", show_default="your login")]
Org = Annotated[str, typer.Argument(help="The organization's id.")]
