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


def test_error_in_an_endpoint_is_answered_without_details(ask):
    answer = asyncio.run(ask("POST"))
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


def test_other_methods_are_handled_by_starlette(ask):
    assert asyncio.run(ask("GET")).text == "elsewhere"


def test_webhook_path_names_its_allowed_method(ingress):
    answer = ingress.client.get("/webhooks/paypal")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_accepted_webhook_is_answered_in_json(ingress):
    answer = ingress.send(ingress.genuine())
    assert answer.headers["content-type"] == "application/json"
    problem = answer.json()
    assert (problem["received"], problem["verdict"]) == (True, "new")
    assert problem["correlation_id"].startswith("cor_")
