"""PayPal's refusals, in PayPal's own format."""

from __future__ import annotations

import secrets

from sandbox.exchange import Json, Rejected, json_answer


def problem(status: int, name: str, issue: str, description: str, field: str = "") -> Rejected:
    """Build a refusal in PayPal's format. `field` is a path in the request body."""
    detail: Json = {"issue": issue, "description": description}
    if field:
        detail |= {"field": field, "location": "body"}
    body = {
        "name": name,
        "message": description,
        "debug_id": secrets.token_hex(6),
        "details": [detail],
        "links": [],
    }
    return Rejected(json_answer(body, status))


def unprocessable(issue: str, description: str) -> Rejected:
    """Build the refusal of an operation that the current state forbids."""
    return problem(422, "UNPROCESSABLE_ENTITY", issue, description)


def invalid(field: str, issue: str, description: str) -> Rejected:
    """Build the refusal of a wrong or missing field."""
    return problem(400, "INVALID_REQUEST", issue, description, field)
