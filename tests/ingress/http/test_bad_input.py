"""Bad input gets one clear problem (RFC 9457) and stores nothing but a count."""

from __future__ import annotations

import json
import socket

import pytest

from base.clock import wait_until
from db.models import InboxEvent
from ingress.http import body as bodies
from ingress.http import protocol
from tests.ingress.support import Message, paypal_event
from tests.ingress.webhooks.test_paypal import PROBLEM, is_refused, nothing_is_stored

CONTENT_TYPES = {
    "/webhooks/paypal": "application/json",
    "/api/webhooks/paypal": "application/json",
    "/webhooks/twilio": "application/x-www-form-urlencoded",
}
each_endpoint = pytest.mark.parametrize("path", sorted(CONTENT_TYPES))


@each_endpoint
def test_unknown_content_type_is_refused(world, ingress, path):
    for given in ("text/plain", "", "multipart/form-data; boundary=x", None):
        headers = {} if given is None else {"Content-Type": given}
        assert is_refused(ingress.client.post(path, content=b"{}", headers=headers), 415)

    assert nothing_is_stored(world)


def test_content_type_may_have_parameters_and_capitals(ingress):
    message = ingress.genuine()
    message.headers["Content-Type"] = "Application/JSON; charset=utf-8"

    assert ingress.send(message).status_code == 200


def test_signed_body_that_cannot_be_read_is_malformed(world, ingress):
    for body in (
        b"{",
        b"[]",
        b"null",
        b'{"id":"WH-1"}',
        b'{"id":"WH-1","id":"WH-2","event_type":"A.B"}',
        b'{"id":"WH 1","event_type":"A.B"}',
        b'{"id":"WH-1","event_type":7}',
        b'{"id":"WH-1","event_type":"A.B","x":NaN}',
        b'{"id":"WH-1\\u0000","event_type":"A.B"}',
        b"\xff\xfe",
        b"[" * 5000,
    ):
        assert is_refused(ingress.send(ingress.signed(body)), 400)

    assert nothing_is_stored(world)


@each_endpoint
def test_empty_body_is_malformed(world, ingress, path):
    answer = ingress.client.post(path, content=b"", headers={"Content-Type": CONTENT_TYPES[path]})
    assert is_refused(answer, 400)


@each_endpoint
def test_body_that_is_declared_too_large_is_refused_unread(ingress, path):
    # When a length of a gigabyte is declared and no byte of the body is sent
    answer = ingress.raw(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: {CONTENT_TYPES[path]}\r\nContent-Length: 1000000000\r\n\r\n".encode()
    )

    # Then the refusal is sent at once
    assert answer.startswith(b"HTTP/1.1 413")
    assert PROBLEM.encode() in answer


@each_endpoint
def test_too_large_body_without_a_declared_length_is_refused(world, ingress, path):
    # When chunks are sent without end and without a declared length
    chunks = (b"x" * 65536 for _ in range(40))
    answer = ingress.client.post(
        path, content=chunks, headers={"Content-Type": CONTENT_TYPES[path]}
    )

    assert is_refused(answer, 413)
    assert nothing_is_stored(world)


def test_largest_body_is_accepted_and_one_byte_more_is_refused(world, start_ingress, settings):
    # Given a limit of 2048 bytes
    ingress = start_ingress(settings, body_bytes_max=2048)
    event = json.loads(paypal_event())

    def of_size(size):
        short = json.dumps({**event, "id": f"WH-{size}", "summary": ""}).encode()
        padded = {**event, "id": f"WH-{size}", "summary": "x" * (size - len(short))}
        return ingress.signed(json.dumps(padded).encode())

    # When bodies at the limit and one byte above it are sent, Then only the first is accepted
    assert len(of_size(2048).body) == 2048
    assert ingress.send(of_size(2048)).status_code == 200
    assert is_refused(ingress.send(of_size(2049)), 413)
    assert len(world.read(InboxEvent)) == 1


@each_endpoint
def test_body_that_takes_too_long_is_refused(world, ingress, path, monkeypatch):
    # Given a sender that begins a body and then stops
    monkeypatch.setattr(bodies, "_BODY_SECONDS_MAX", 0.2)

    answer = ingress.raw(
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: {CONTENT_TYPES[path]}\r\nContent-Length: 100\r\n\r\n{{".encode()
    )

    # Then the ingress refuses it instead of waiting
    assert answer.startswith(b"HTTP/1.1 408")
    assert PROBLEM.encode() in answer
    assert nothing_is_stored(world)


@each_endpoint
def test_slow_body_is_answered_and_its_connection_closed(ingress, path, monkeypatch):
    # Given a sender that sends slowly and did not ask to close the connection
    monkeypatch.setattr(bodies, "_BODY_SECONDS_MAX", 0.2)
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 1.0)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: {CONTENT_TYPES[path]}\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", ingress.port), timeout=20) as connection:
        connection.sendall(head.encode())

        # When the sender continues after the answer
        def is_closed():
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        answer = b""
        while part := connection.recv(65536):
            answer += part

        # Then the answer is complete and announces the end, and the connection closes
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()
        assert answer.endswith(b"}")
        assert wait_until(is_closed, limit_seconds=10)


def test_request_that_breaks_off_leaves_nothing(world, ingress):
    # When a connection breaks in the middle of a body
    with socket.create_connection(("127.0.0.1", ingress.port)) as connection:
        connection.sendall(
            b"POST /webhooks/paypal HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )

    # Then the ingress serves the next request as before
    assert ingress.send(ingress.genuine()).status_code == 200
    assert len(world.read(InboxEvent)) == 1


def test_unknown_route_is_not_found(ingress):
    paths = (
        "/",
        "/webhooks",
        "/webhooks/stripe",
        "/webhooks/paypal/",
        "/webhooks/paypal/x",
        "/%00",
    )
    for path in paths:
        answer = ingress.client.post(path, json={})
        assert is_refused(answer, 404)
        assert "location" not in answer.headers


@each_endpoint
def test_another_method_is_not_allowed(ingress, path):
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = ingress.client.request(method, path)
        assert is_refused(answer, 405)
        assert answer.headers["allow"] == "POST"


def test_invalid_heads_are_refused_and_never_break_the_ingress(world, ingress):
    for head in (
        b"X-Test: a\r\n\tb",
        b"X-Test: a\x00b",
        b"X-Test : a",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: \xb2",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999999",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"X-Long: " + b"x" * 100_000,
    ):
        # When a malformed header is sent with a forged body
        answer = ingress.raw(
            b"POST /webhooks/paypal HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\n" + head + b"\r\n\r\n{}\r\n"
        )

        # Then it is refused
        assert answer.split(b" ")[1][:1] == b"4", (head, answer[:200])

    # And nothing is stored, and the next request is served
    assert nothing_is_stored(world)
    assert ingress.client.get("/healthz").status_code == 200


def test_answer_contains_nothing_of_the_request(ingress):
    # When an attacker's text is in the headers, the path and the body
    message = Message(
        {**ingress.genuine().headers, "PAYPAL-TRANSMISSION-ID": "<script>alert(1)</script>"},
        b'{"id":"<script>"}',
    )

    # Then none of it is in an answer
    for answer in (ingress.send(message), ingress.client.post("/<script>", json={})):
        assert "script" not in answer.text
        assert "script" not in str(answer.headers)
    assert ingress.client.get("/healthz").headers.get("server") is None
