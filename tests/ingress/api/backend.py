"""The company's backend: it calls the API for one organization."""

from __future__ import annotations

import re

from base.problems.code import Code
from base.problems.details import Problem
from ingress.api.openapi import document
from tests.ingress.calls.callers import Caller, Signer
from tests.support.world import World

RESERVE, COMMIT = "/api/billing/reserve-credits", "/api/billing/commit-credits"


class Backend:
    """The company's backend, with a token for one organization."""

    def __init__(self, world: World, ingress, signer: Signer) -> None:
        self.caller = Caller(world)
        self.client = ingress.client
        self.headers = signer.headers(self.caller.id)

    def post(self, path: str, /, **body):
        return self.client.post(path, json=body, headers=self.headers)

    def get(self, path: str, **query):
        return self.client.get(path, params=query, headers=self.headers)

    def reserve(self, call_id: str = "test-1", **more):
        return self.post(RESERVE, **{"callId": call_id, "estimatedMinutes": 1} | more)


def is_problem(answer, code: Code) -> bool:
    """Check a problem's members, and that its operation's description names its code."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, problem["code"]) == (code.status, code), answer.text
    assert {**problem, "detail": ""} == {**Problem(code).to_dict(), "detail": ""}
    request = answer.request
    assert code in described_codes(request.method, request.url.path), (code, request)
    return True


def described_codes(method: str, path: str) -> set[str]:
    """Return the codes that the OpenAPI document names for an operation."""
    paths = document()["paths"]
    same = [one for one in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", one), path)]
    # If several paths match, the one without parameters is meant.
    operation = paths[min(same, key=lambda one: "{" in one)][method.lower()]
    schemas = [
        content["schema"]
        for response in operation["responses"].values()
        for media_type, content in response["content"].items()
        if media_type == "application/problem+json"
    ]
    return {code for schema in schemas for code in schema["properties"]["code"]["enum"]}
