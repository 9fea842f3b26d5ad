"""Triggers: has the sandbox do what a provider, or somebody with a telephone, does by itself."""

from __future__ import annotations

import json
from typing import Annotated, Any

import httpx
import typer

from base.settings import load_settings
from cli.commands.shared import Failure, Json, clear_errors, show
from cli.sandbox import sandbox_info
from cli.stack import state_folder

app = typer.Typer(no_args_is_help=True, help="Have the sandbox send what a provider sends.")


@app.command()
def paypal(
    event: Annotated[str, typer.Argument(help="Such as BILLING.SUBSCRIPTION.SUSPENDED.")],
    organization: Annotated[str, typer.Option("--org", help="The organization's id.")],
    copies: Annotated[int, typer.Option(min=1, max=50, help="Send it so often at once.")] = 1,
    as_json: Json = False,
) -> None:
    """Have PayPal's stand-in send a signed webhook about an organization."""
    asked = {"event_type": event, "organization_id": organization, "copies": copies}
    deliveries = _send("/paypal/events", asked)
    rows = [
        {"event": one["event_id"], "status": one["status_code"], "answer": _verdict(one["body"])}
        for one in deliveries
    ]
    show(rows, as_json, event)


@app.command()
def vapi(
    number: Annotated[str, typer.Argument(help="The id of a number of the sandbox's.")],
    talk: Annotated[float | None, typer.Option(help="Seconds; none: until it is ended.")] = None,
    deaf: Annotated[bool, typer.Option(help="It hears no order to end.")] = False,
    as_json: Json = False,
) -> None:
    """Have somebody ring up a number at Vapi's stand-in (vapi-number makes one)."""
    asked = {
        "direction": "inbound",
        "number_id": number,
        "talk_seconds": talk,
        "behaviour": {"deaf": deaf},
    }
    made = _send("/vapi/calls", asked)
    show({"call": made["id"], "status": made["status"]}, as_json)


@app.command("vapi-number")
def vapi_number(
    number: Annotated[str, typer.Argument(help="Such as +15005550123.")],
    subaccount: Annotated[str, typer.Option(help="Whose subaccount carries its calls.")] = "",
    as_json: Json = False,
) -> None:
    """Bring a number and an assistant in at Vapi's stand-in, for `call door add`."""
    assistant = _send("/vapi/assistants", {"name": number})
    made = _send("/vapi/numbers", {"number": number, "twilio_sid": subaccount})
    show({"number": made["id"], "assistant": assistant["id"]}, as_json)


def _send(path: str, asked: dict[str, Any]) -> Any:
    with clear_errors():
        found = sandbox_info(state_folder(load_settings()))
        answer = httpx.post(
            f"{found['base_url']}/_control{path}", json=asked, timeout=30, trust_env=False
        )
        if answer.status_code >= 400:
            raise Failure(f"the sandbox refuses: {answer.text}")
        return answer.json()


def _verdict(body: str) -> str:
    """What the ingress answered, in a word or two; as it is where it is not ours."""
    try:
        answer = json.loads(body)
    except ValueError:
        return body
    return str(answer.get("verdict") or answer.get("title") or body)
