"""The front: webhooks bypass Starlette, and a sender sees no difference."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ingress.http.front import Front


@pytest.fixture
def ask():
    """Ask a front with one failing webhook endpoint, in the same process."""

    async def elsewhere(_request):
        return PlainTextResponse("elsewhere")

    async def entry_point(_scope, _receive, _send):
        raise KeyError("a secret")

    app = Starlette(routes=[Route("/webhooks/x", elsewhere, methods=["GET", "POST"])])
    transport = httpx.ASGITransport(Front(app, {"/webhooks/x": entry_point}))

    async def request(method):
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, "/webhooks/x")

    return request


def test_a_bug_in_a_door_is_answered_as_a_problem_that_tells_nothing(ask):
    answer = asyncio.run(ask("POST"))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_other_methods_are_starlettes(ask):
    assert asyncio.run(ask("GET")).text == "elsewhere"


def test_a_webhooks_path_tells_which_method_is_allowed(ingress):
    answer = ingress.client.get("/webhooks/paypal")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_an_accepted_webhook_is_answered_in_json(ingress):
    answer = ingress.send(ingress.genuine())
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    assert (told["received"], told["verdict"]) == (True, "new")
    assert told["correlation_id"].startswith("cor_")
