"""What opens a circuit breaker, and which calls it and the rate limits hold back.

The tests use real HTTP and Redis.
"""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from base.channels import ProviderChannel
from base.clock import wait_until
from base.enums import Provider, RequestClass
from base.outcomes import HeldBack, OutcomeUnknown, ProviderUnavailable
from providers.http.client import Answer, Deadline, build_client, exchange, send_with_retries
from providers.http.limits import ChannelLimits
from providers.twilio.transport import TWILIO_URL, Transport
from tests.db.redis.support import POLICY, circuits, wait_is_over
from tests.providers.support import Loopback, Reply

PARENT, TENANT, OTHER = ("AC" + digit * 32 for digit in "abc")
UNAVAILABLE = (ProviderUnavailable, OutcomeUnknown)


@pytest.fixture
def fleet(redis_client):
    return circuits(redis_client)


def limits_of(fleet, call_class=RequestClass.BULK, account=PARENT) -> ChannelLimits:
    return ChannelLimits(ProviderChannel(Provider.TWILIO, account, call_class), fleet)


def send(
    url: str, channel_limits: ChannelLimits, method: str = "GET", seconds: float = 10, **more
) -> Answer:
    with build_client(url) as client:
        return exchange(
            client,
            method,
            url,
            limits=channel_limits,
            repeatable=method == "GET",
            deadline=Deadline.after(seconds),
            **more,
        )


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("reply", [None, Reply(500), Reply(503)], ids=["lost", "500", "503"])
def test_lost_answers_and_5xx_open_the_circuit(fleet, loopback: Loopback, reply, method):
    # Given a provider that is down
    loopback.answer = lambda asked: reply
    for _ in range(POLICY.failures):
        with pytest.raises(UNAVAILABLE):
            send(loopback.url, limits_of(fleet), method)
    # When it is called once more, Then nothing is sent
    with pytest.raises(HeldBack):
        send(loopback.url, limits_of(fleet), method)
    assert len(loopback.asked) == POLICY.failures


def test_provider_that_is_not_reached_opens_the_circuit(fleet):
    with socket.socket() as spare:
        spare.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{spare.getsockname()[1]}"
    for _ in range(POLICY.failures):
        with pytest.raises(ProviderUnavailable):
            send(url, limits_of(fleet))
    with pytest.raises(HeldBack):
        send(url, limits_of(fleet))


def test_late_answer_counts_as_a_failure(fleet, loopback: Loopback):
    loopback.answer = lambda asked: Reply(200, b"x" * 100)
    for _ in range(POLICY.failures):
        with socket.socket() as silent, pytest.raises(ProviderUnavailable):
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            send(f"http://127.0.0.1:{silent.getsockname()[1]}", limits_of(fleet), seconds=0.2)
    with pytest.raises(HeldBack):
        send(loopback.url, limits_of(fleet))


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 404, 409, 422])
def test_refusals_never_count_as_failures(fleet, loopback: Loopback, status):
    # Given many answers that are no failure of the provider
    loopback.answer = lambda asked: Reply(status)
    for _ in range(3 * POLICY.calls):
        try:
            send(loopback.url, limits_of(fleet), "POST")
        except UNAVAILABLE:
            assert status == 302
    # Then every one of them was sent
    assert len(loopback.asked) == 3 * POLICY.calls


def test_refusal_closes_the_circuit(fleet, loopback: Loopback, redis_client):
    loopback.answer = lambda asked: Reply(500)
    for _ in range(POLICY.failures):
        with pytest.raises(ProviderUnavailable):
            send(loopback.url, limits_of(fleet))
    wait_is_over(redis_client, limits_of(fleet).channel)
    loopback.answer = lambda asked: Reply(404)
    assert send(loopback.url, limits_of(fleet)).status == 404
    assert send(loopback.url, limits_of(fleet)).status == 404


def in_seconds(seconds: int) -> str:
    return str(seconds)


def as_a_date(seconds: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("text", [in_seconds, as_a_date])
def test_429_holds_the_account_back_until_the_named_time(fleet, loopback: Loopback, text):
    # Given one worker's call, answered 429 with a wait of 30 seconds
    loopback.answer = lambda asked: Reply(429, headers={"Retry-After": text(30)})
    with pytest.raises(ProviderUnavailable):
        send(loopback.url, limits_of(fleet, RequestClass.MONEY))
    # When others call this account, Then nothing but safety calls is sent; other accounts are not
    # held back
    loopback.answer = lambda asked: Reply(200)
    for held in (RequestClass.MONEY, RequestClass.BULK):
        with pytest.raises(HeldBack) as caught:
            send(loopback.url, limits_of(fleet, held))
        assert caught.value.delay_seconds > 20
    assert send(loopback.url, limits_of(fleet, RequestClass.SAFETY)).status == 200
    assert send(loopback.url, limits_of(fleet, RequestClass.BULK, OTHER)).status == 200


def test_503_with_a_time_holds_the_account_back(fleet, loopback: Loopback):
    loopback.answer = lambda asked: Reply(503, headers={"Retry-After": "30"})
    with pytest.raises(ProviderUnavailable):
        send(loopback.url, limits_of(fleet))
    with pytest.raises(HeldBack, match="rate"):
        send(loopback.url, limits_of(fleet))


def test_429_without_a_time_holds_the_account_back_briefly(fleet, loopback: Loopback):
    loopback.answer = lambda asked: Reply(429)
    with pytest.raises(ProviderUnavailable):
        send(loopback.url, limits_of(fleet))
    with pytest.raises(HeldBack, match="rate"):
        fleet.enter(limits_of(fleet).channel, 0.0)


def test_many_429_to_our_own_account_open_the_circuit(fleet, loopback: Loopback):
    loopback.answer = lambda asked: Reply(429)
    for _ in range(POLICY.failures):
        with pytest.raises(ProviderUnavailable):
            send(loopback.url, limits_of(fleet, RequestClass.SAFETY))
    assert fleet.enter(limits_of(fleet, RequestClass.SAFETY).channel, 1.0)[1].startswith("safety:")


def ask_twilio(loopback: Loopback, channel_limits: ChannelLimits, path: str) -> int:
    with build_client(loopback.url) as client:
        transport = Transport(client, loopback.url, Deadline.after(5), channel_limits)
        answer = transport.request("POST", f"{TWILIO_URL}/2010-04-01/Accounts/{path}")
    return answer.status_code


def test_429_to_a_subaccount_holds_back_that_subaccount_only(fleet, loopback: Loopback):
    # Given a subaccount that is rate limited more often than opens a circuit
    loopback.answer = lambda asked: Reply(429, headers={"Retry-After": "30"})
    safety, bulk = limits_of(fleet, RequestClass.SAFETY), limits_of(fleet)
    for _ in range(2 * POLICY.failures):
        with pytest.raises(ProviderUnavailable):
            ask_twilio(loopback, safety, f"{TENANT}/Messages.json")
    # When messages are sent for it, Then they wait
    with pytest.raises(HeldBack, match="rate"):
        ask_twilio(loopback, bulk, f"{TENANT}/Messages.json")
    # But messages of another tenant and calls of the parent account go out, and no circuit is open
    loopback.answer = lambda asked: Reply(200, b"{}")
    assert ask_twilio(loopback, bulk, f"{OTHER}/Messages.json") == 200
    assert ask_twilio(loopback, bulk, f"{TENANT}.json") == 200
    assert ask_twilio(loopback, bulk, f"{PARENT}/Messages.json") == 200
    assert fleet.enter(safety.channel, 1.0)[1] == ""


def test_call_waits_for_the_rate_limit_when_the_wait_is_short(redis_client, loopback: Loopback):
    # Given a rate of five calls in four seconds
    loopback.answer = lambda asked: Reply(200)
    channel_limits = limits_of(circuits(redis_client, per_second=1.25))
    began = time.monotonic()
    # When more calls are made than may go out at once
    for _ in range(4):
        assert send(loopback.url, channel_limits).status == 200
    # Then none is refused, and none goes out before its turn
    assert time.monotonic() - began >= 3 * 0.8 - 0.2


def test_exhausted_connection_pool_opens_no_circuit(fleet, loopback: Loopback):
    # Given a client whose only connection is in use
    release = threading.Event()
    loopback.answer = lambda asked: release.wait(20) and Reply(200)
    channel_limits, limits = limits_of(fleet), httpx.Limits(max_connections=1)
    with httpx.Client(limits=limits, timeout=20) as client, ThreadPoolExecutor(1) as pool:
        busy = pool.submit(client.get, loopback.url)
        assert wait_until(lambda: bool(loopback.asked), limit_seconds=20)
        # When calls find no free connection, more often than opens a circuit
        for _ in range(2 * POLICY.failures):
            with pytest.raises(ProviderUnavailable, match="PoolTimeout"):
                exchange(
                    client,
                    "GET",
                    loopback.url,
                    limits=channel_limits,
                    repeatable=True,
                    deadline=Deadline.after(0.1),
                )
        release.set()
        busy.result()
    # Then the circuit is closed
    assert fleet.enter(channel_limits.channel, 1.0)[1] == ""


def test_read_is_not_repeated_when_the_circuit_opens(fleet, loopback: Loopback):
    # Given a circuit that opens after the second of three tries
    loopback.answer = lambda asked: Reply(500)
    channel_limits = limits_of(fleet)
    with pytest.raises(ProviderUnavailable):
        send(loopback.url, channel_limits)
    # When a read is repeated
    with pytest.raises(HeldBack):
        send_with_retries(lambda: send(loopback.url, channel_limits), Deadline.after(20))
    # Then there is no third try
    assert len(loopback.asked) == 3


def test_interrupted_trial_is_given_to_another_call(fleet, loopback, redis_client):
    # Given an open circuit whose wait is over
    loopback.answer = lambda asked: Reply(500)
    channel_limits = limits_of(fleet)
    for _ in range(POLICY.failures):
        with pytest.raises(ProviderUnavailable):
            send(loopback.url, channel_limits)
    wait_is_over(redis_client, channel_limits.channel)
    # When the trial call fails with an error of our own
    with pytest.raises(TypeError):
        send(loopback.url, channel_limits, "POST", json=object())
    # Then the next call is the trial
    loopback.answer = lambda asked: Reply(200)
    assert send(loopback.url, channel_limits).status == 200
    assert fleet.enter(channel_limits.channel, 1.0)[1] == ""
