"""The command `python -m sandbox --port N --state DIR [--target URL] [--keep]`.

It starts the stand-ins and serves them until a signal arrives.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from sandbox.server import serve
from sandbox.store import StateUnreadable


def main(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free")] = 0,
    state: Annotated[Path, typer.Option(help="Folder for keys and sandbox.json")] = Path(
        "var/sandbox"
    ),
    target: Annotated[
        str, typer.Option(help="Base address of the ingress that webhooks go to")
    ] = "http://127.0.0.1:8080",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the providers' resources in DIR/state.db")
    ] = False,
) -> None:
    """Serve PayPal, Twilio, Stripe and Vapi stand-ins on 127.0.0.1."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        serve(port, state, target, keep=keep)
    except StateUnreadable as error:
        sys.stderr.write(f"sandbox: {error}\n")
        raise typer.Exit(1) from None
    except OSError as error:
        sys.stderr.write(f"sandbox: cannot serve: {error}\n")
        raise typer.Exit(1) from None


if __name__ == "__main__":
    typer.run(main)
