from __future__ import annotations

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from base.outcomes import OutcomeUnknown, ProviderUnavailable
from providers.http import client as http
from providers.http.client import Deadline, build_client, exchange, send_with_retries
from tests.providers.support import Loopback, Reply


def send(url: str, *, repeatable: bool, seconds: float = 5.0, **more) -> http.Answer:
    with build_client(url) as client:
        return exchange(
            client,
            "GET" if repeatable else "POST",
            url,
            limits=None,
            repeatable=repeatable,
            deadline=Deadline.after(seconds),
            **more,
        )


@pytest.mark.parametrize("repeatable", [True, False])
def test_refused_connection_is_unavailable_for_a_change(repeatable):
    # Given a port on which no process listens
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{spare.getsockname()[1]}"
    # When a request is sent there, Then it is certain that it had no effect
    with pytest.raises(ProviderUnavailable):
        send(url, repeatable=repeatable)


@pytest.mark.parametrize(
    ("repeatable", "error"), [(True, ProviderUnavailable), (False, OutcomeUnknown)]
)
@pytest.mark.parametrize(
    "reply",
    [None, Reply(500), Reply(503), Reply(302, headers={"Location": "/"}), Reply(200, b"x" * 2000)],
    ids=["lost", "500", "503", "redirect", "too large"],
)
def test_lost_answer_is_unknown_only_for_a_change(loopback: Loopback, repeatable, error, reply):
    # Given a provider that received the request
    loopback.answer = lambda asked: reply
    # When its answer is lost or unusable, Then the outcome is unknown only for a change
    with pytest.raises(error):
        send(loopback.url, repeatable=repeatable, bytes_max=1000)
    assert len(loopback.asked) == 1


@pytest.mark.parametrize("repeatable", [True, False])
def test_429_is_unavailable_and_names_the_wait(loopback: Loopback, repeatable):
    loopback.answer = lambda asked: Reply(429, headers={"Retry-After": "7"})
    with pytest.raises(ProviderUnavailable) as caught:
        send(loopback.url, repeatable=repeatable)
    assert caught.value.retry_after_seconds == 7.0


def test_hanging_answer_ends_at_the_deadline(loopback: Loopback):
    # Given a provider that does not answer
    release = threading.Event()
    loopback.answer = lambda asked: release.wait(5) and None
    # When it is asked to change something, within 0.3 seconds
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        send(loopback.url, repeatable=False, seconds=0.3)
    release.set()
    # Then the call ends at its deadline
    assert time.monotonic() - began < 2


def test_read_is_sent_three_times_at_most(loopback: Loopback):
    loopback.answer = lambda asked: Reply(500)
    with pytest.raises(ProviderUnavailable):
        send_with_retries(lambda: send(loopback.url, repeatable=True), Deadline.after(10))
    assert len(loopback.asked) == 3


def test_read_succeeds_on_the_second_try(loopback: Loopback):
    loopback.answer = lambda asked: Reply(500 if len(loopback.asked) == 1 else 200)
    assert (
        send_with_retries(lambda: send(loopback.url, repeatable=True), Deadline.after(10)).status
        == 200
    )


def test_long_requested_wait_ends_the_tries(loopback: Loopback):
    loopback.answer = lambda asked: Reply(429, headers={"Retry-After": "30"})
    with pytest.raises(ProviderUnavailable) as caught:
        send_with_retries(lambda: send(loopback.url, repeatable=True), Deadline.after(60))
    assert caught.value.retry_after_seconds == 30.0
    assert len(loopback.asked) == 1


def test_short_requested_wait_is_followed(loopback: Loopback):
    loopback.answer = lambda asked: (
        Reply(429, headers={"Retry-After": "1"}) if len(loopback.asked) == 1 else Reply(200)
    )
    began = time.monotonic()
    send_with_retries(lambda: send(loopback.url, repeatable=True), Deadline.after(10))
    assert time.monotonic() - began >= 1.0


def test_no_try_begins_after_the_deadline(loopback: Loopback):
    loopback.answer = lambda asked: Reply(429, headers={"Retry-After": "3"})
    began = time.monotonic()
    with pytest.raises(ProviderUnavailable):
        send_with_retries(lambda: send(loopback.url, repeatable=True), Deadline.after(1))
    assert time.monotonic() - began < 3
    assert len(loopback.asked) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("999999999", 86_400.0), ("-1", None), ("soon", None), ("", None)],
)
def test_retry_after_is_read_within_bounds(text, seconds):
    assert http.retry_after_seconds_of({"Retry-After": text}) == seconds


def test_retry_after_may_be_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 50 < (http.retry_after_seconds_of({"Retry-After": later}) or 0) <= 60


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:1", True),
        ("http://localhost:1", True),
        ("http://[::1]:1", True),
        ("http://127.0.0.1.evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://10.0.0.1", False),
    ],
)
def test_loopback_is_this_machine_only(url, expected):
    assert http.is_loopback(url) is expected
