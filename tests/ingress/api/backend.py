"""The company's backend: it calls the API for one organization."""

from __future__ import annotations

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


def is_problem(answer, status: int, title: str) -> bool:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    assert (answer.status_code, answer.json()["title"]) == (status, title), answer.text
    return True
