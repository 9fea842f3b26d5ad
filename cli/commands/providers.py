"""Circuit breakers and rate limits of providers; close a circuit manually."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Annotated, Any

import redis
import typer

from base.channels import CALLED
from base.enums import Provider, RequestClass
from base.log import configure
from base.settings import SettingsError, load_settings
from cli.commands.output import print_result, show
from cli.commands.shared import acting_operator, addresses, in_transaction
from cli.errors import Failure, clear_errors
from cli.options import By, Json, Why
from db.redis import circuit_states as states
from db.redis.circuit_states import CircuitState
from db.redis.circuits import Circuits, rates_of
from domain.operator_notes import record_action

app = typer.Typer(no_args_is_help=True, help="Circuit breakers and rate limits of providers.")


@app.command("list")
def list_providers(as_json: Json = False) -> None:
    """List circuit breakers: state, failures, rate limit and held-back accounts."""
    with _open_circuits() as circuits:
        circuit_states = states.read_states(circuits.client, circuits.window_seconds)
    rates = rates_of(load_settings())
    rows = [
        _state_row(state, rates.get((state.provider, state.call_class))) for state in circuit_states
    ]
    show(rows, as_json, "providers")


@app.command("close-circuit")
def close_circuit(
    provider: Provider,
    call_class: Annotated[RequestClass, typer.Argument(metavar="CLASS", help="The calls' class.")],
    why: Why,
    by: By = "",
    as_json: Json = False,
) -> None:
    """Close a circuit and release its held-back accounts; calls go out at once."""
    operator = acting_operator(by, why)
    subject = f"{provider}:{call_class}"
    if provider not in CALLED:
        with clear_errors():
            raise Failure(f"{provider} has no circuits, because Holdfast does not call it")
    # PostgreSQL records the action first. Redis keeps its copy for one day only, for display.
    in_transaction(
        lambda session, now: record_action(
            session, "circuit.close", subject, operator=operator, now=now
        )
    )
    with _open_circuits() as circuits:
        was_open = states.close_circuit(circuits.client, provider, call_class, operator=operator)
    print_result(
        f"{provider} {call_class}: {'closed' if was_open else 'was already closed'}",
        {
            "provider": provider,
            "request_class": call_class,
            "action": "close_circuit",
            "changed": bool(was_open),
        },
        as_json,
    )


def _state_row(state: CircuitState, per_second: float | None) -> dict[str, Any]:
    return {
        "provider": state.provider,
        "request_class": state.call_class,
        "circuit": state.state,
        "failures": state.failures,
        "open_until": state.open_until,
        "openings": state.openings,
        "requests_per_second": per_second,
        "held_back": [
            {"account_id": account, "until": until}
            for account, until in sorted(state.held_back.items())
        ],
        "last_manual_close": state.closed_manually,
    }


@contextlib.contextmanager
def _open_circuits() -> Iterator[Circuits]:
    with clear_errors():
        settings = load_settings()
        configure(settings.log_level, settings.log_format)
        url = settings.redis_url or addresses()[1]
        if not url:
            raise SettingsError("missing setting: REDIS_URL (or run: holdfast up)")
        circuits = Circuits.from_settings(settings.model_copy(update={"redis_url": url}))
        with contextlib.closing(circuits):
            try:
                yield circuits
            except redis.RedisError as error:
                raise Failure(f"Redis did not answer: {error}") from None
