"""PayPal's refusals, in the shape that its clients read."""

from __future__ import annotations

import secrets

from sandbox.exchange import Json, Rejected, json_answer


def problem(status: int, name: str, issue: str, description: str, field: str = "") -> Rejected:
    """This function will write a refusal in PayPal's shape; `field` is a path in the body."""
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
    """This function will write the refusal of something that the present state forbids."""
    return problem(422, "UNPROCESSABLE_ENTITY", issue, description)


def invalid(field: str, issue: str, description: str) -> Rejected:
    """This function will write the refusal of a wrong or missing field."""
    return problem(400, "INVALID_REQUEST", issue, description, field)
