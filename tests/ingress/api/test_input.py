"""The JSON API with bad input: each problem names the wrong part."""

from __future__ import annotations

from base.problems.requests import MALFORMED_REQUEST
from tests.ingress.api.backend import COMMIT, RESERVE, is_problem

WRONG_FIELDS = [
    (RESERVE, {}, "callId"),
    (RESERVE, {"callId": 7, "estimatedMinutes": 1}, "callId"),
    (RESERVE, {"callId": "x" * 65, "estimatedMinutes": 1}, "callId"),
    (RESERVE, {"callId": "a\0b", "estimatedMinutes": 1}, "callId"),
    (RESERVE, {"callId": "a"}, "estimatedMinutes"),
    (RESERVE, {"callId": "a", "estimatedMinutes": "many"}, "estimatedMinutes"),
    (RESERVE, {"callId": "a", "estimatedMinutes": "5"}, "estimatedMinutes"),
    (RESERVE, {"callId": "a", "estimatedMinutes": [5]}, "estimatedMinutes"),
    (RESERVE, {"callId": " a", "estimatedMinutes": 1}, "callId"),
    (RESERVE, {"callId": "a", "estimatedMinutes": True}, "estimatedMinutes"),
    (RESERVE, {"callId": "a", "estimatedMinutes": -1}, "estimatedMinutes"),
    (RESERVE, {"callId": "a", "estimatedMinutes": 1e300}, "estimatedMinutes"),
    (RESERVE, {"callId": "a", "estimatedMinutes": 1, "price": 0}, "price"),
    (COMMIT, {"callId": "a", "durationSeconds": 43_261}, "durationSeconds"),
    (COMMIT, {"callId": "a", "durationSeconds": None}, "durationSeconds"),
]


def test_wrong_field_is_named(backend):
    for path, body, field in WRONG_FIELDS:
        answer = backend.client.post(path, json=body, headers=backend.headers)
        assert is_problem(answer, MALFORMED_REQUEST), body
        assert answer.json()["detail"].startswith(field), body


NO_OBJECTS = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b"\xff", 400),
    (b'{"callId":"\\ud800","estimatedMinutes":1}', 400),
    (b"[" * 50_000, 400),
    (b'{"callId":"a","estimatedMinutes":' + b"9" * 10_000 + b"}", 400),
    (b'{"callId":"a","estimatedMinutes":1e-99999999999999999999}', 400),
    (b'{"callId":"a","estimatedMinutes":1e99999999999999999999}', 400),
    (b'{"callId":"a","estimatedMinutes":1e-999999999}', 400),
    (b"{" + b" " * 70_000, 413),
]


def test_body_that_is_no_object_is_refused(backend):
    headers = {**backend.headers, "Content-Type": "application/json"}
    for body, status in NO_OBJECTS:
        answer = backend.client.post(RESERVE, content=body, headers=headers)
        assert answer.status_code == status, body[:80]


WRONG_PARTS = [
    ("/api/calls/a%00b", {}, "id"),
    (f"/api/calls/{'x' * 65}", {}, "id"),
    ("/api/calls/a", {"price": "0"}, "price"),
    ("/api/calls/costs", {"to": "0001-01-01"}, "to"),
    ("/api/calls/costs", {"from": "0001-01-01", "to": "0001-01-01"}, "to"),
    ("/api/calls/costs", {"to": "9999-12-32"}, "to"),
    ("/api/billing/wallet", {"limit": "1"}, "limit"),
    ("/api/billing/wallet/transactions", {"limit": "0"}, "limit"),
    ("/api/billing/wallet/transactions", {"limit": "1_0"}, "limit"),
    ("/api/billing/wallet/transactions", {"limit": "1.5"}, "limit"),
    ("/api/billing/wallet/transactions", {"limit": "201"}, "limit"),
    ("/api/billing/wallet/transactions", {"cursor": "9" * 20}, "cursor"),
    ("/api/billing/wallet/transactions", {"cursor": "1e3"}, "cursor"),
]


def test_wrong_part_of_an_address_is_named(backend):
    for path, query, field in WRONG_PARTS:
        answer = backend.get(path, **query)
        assert is_problem(answer, MALFORMED_REQUEST), (path, query)
        assert answer.json()["detail"].startswith(field), (path, query)


def test_last_possible_day_has_no_calls(backend):
    assert backend.get("/api/calls/costs", to="9999-12-31").json() == {"days": []}


def test_head_request_is_answered_like_its_get(backend):
    answer = backend.client.head("/api/billing/wallet", headers=backend.headers)
    assert (answer.status_code, answer.content) == (200, b"")


def test_incomplete_body_is_answered_408(ingress, signer):
    token = signer.token("org_one")
    answer = ingress.raw(
        f"POST {RESERVE} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
        "Content-Length: 10\r\n\r\n{".encode()
    )
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_other_content_type_is_refused(backend):
    headers = {**backend.headers, "Content-Type": "text/xml"}
    assert backend.client.post(RESERVE, content=b"<a/>", headers=headers).status_code == 415
