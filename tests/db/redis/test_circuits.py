"""Circuit breakers in a real Redis: open, trial, close, rates and holds.

Also an outage of Redis.
"""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from base.channels import ProviderChannel
from base.enums import Provider, RequestClass
from base.outcomes import HeldBack
from db.redis import circuits as under_test
from db.redis.circuits import Circuits, circuit_key, outcomes_key
from db.redis.client import connect
from local.embedded import EmbeddedServers
from tests.db.redis.support import (
    BULK,
    MONEY,
    POLICY,
    SAFETY,
    call,
    circuits,
    holds_are_over,
    open_circuit,
    open_for_seconds,
    trial_is_over,
    wait_is_over,
)
from tests.support.servers import server_folder


@pytest.fixture
def fleet(redis_client) -> Circuits:
    return circuits(redis_client)


def fail_once(url: str) -> None:
    with connect(url) as client:
        call(circuits(client), BULK, "failed")


def test_failures_in_several_processes_open_one_shared_circuit(urls, fleet):
    # Given two failures, each seen by a different process
    context = multiprocessing.get_context("spawn")
    for _ in range(2):
        process = context.Process(target=fail_once, args=(urls.redis_url,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    # When this process sees a third failure
    call(fleet, BULK, "failed")
    # Then no process may call until the circuit may be tried
    with connect(urls.redis_url) as client, pytest.raises(HeldBack, match="is open") as caught:
        circuits(client).enter(BULK, 1.0)
    assert POLICY.open_seconds - 1 < caught.value.delay_seconds


def test_failures_among_enough_successes_do_not_open_the_circuit(fleet):
    # Given one failure in every three calls, for eighteen calls
    for _ in range(6):
        call(fleet, BULK, "failed")
        call(fleet, BULK, "answered")
        call(fleet, BULK, "answered")
    # Then calls go out
    assert fleet.enter(BULK, 1.0)[1] == ""


def test_failures_older_than_the_window_do_not_count(fleet, redis_client):
    # Given failures outside the window, in a list that a newer answer keeps alive
    call(fleet, BULK, "answered")
    redis_client.lpush(outcomes_key(BULK), "1000:1", "1000:1", "1000:1")
    # When calls fail, Then the circuit opens after as many failures as without the old ones
    call(fleet, BULK, "failed")
    call(fleet, BULK, "failed")
    call(fleet, BULK, "failed")
    with pytest.raises(HeldBack):
        fleet.enter(BULK, 1.0)


def test_circuit_belongs_to_one_provider_and_one_class(fleet):
    # Given failures of bulk calls
    open_circuit(fleet, BULK)
    # Then neither safety nor money calls nor another provider are held back
    for route in (SAFETY, MONEY, ProviderChannel(Provider.PAYPAL, "AC1", RequestClass.BULK)):
        fleet.enter(route, 1.0)


def test_safety_calls_are_always_sent(fleet, redis_client):
    # Given an open circuit for safety calls, and an account that is held back
    open_circuit(fleet, SAFETY)
    fleet.leave(SAFETY, "", "answered", 60)
    assert redis_client.hexists(circuit_key(SAFETY), "open_until")
    # When many safety calls are made
    waits = [fleet.enter(SAFETY, 1.0)[0] for _ in range(50)]
    # Then each goes out at once
    assert waits == [0.0] * 50


def test_one_trial_is_sent_by_the_whole_fleet(urls, fleet, redis_client):
    # Given an open circuit whose wait is over
    open_circuit(fleet, MONEY)
    wait_is_over(redis_client, MONEY)
    together = threading.Barrier(12)

    def work() -> str:
        with connect(urls.redis_url) as client:
            one = circuits(client)
            together.wait()
            try:
                return one.enter(MONEY, 1.0)[1]
            except HeldBack as error:
                return error.detail

    # When many workers call at the same moment
    with ThreadPoolExecutor(12) as pool:
        results = [one.result() for one in [pool.submit(work) for _ in range(12)]]

    # Then one call goes out as the trial, and the others wait for its result
    assert len([one for one in results if "being tried" in one]) == 11


def test_trial_that_is_answered_closes_the_circuit(fleet, redis_client):
    open_circuit(fleet, BULK)
    wait_is_over(redis_client, BULK)
    assert call(fleet, BULK, "answered")
    # Then all calls go out again, and earlier failures no longer count
    assert fleet.enter(BULK, 1.0)[1] == ""
    call(fleet, BULK, "failed")
    call(fleet, BULK, "failed")
    assert fleet.enter(BULK, 1.0)[1] == ""


def test_each_trial_that_fails_doubles_the_wait_up_to_a_bound(fleet, redis_client):
    open_circuit(fleet, BULK)
    waits = [open_for_seconds(redis_client, BULK)]
    for _ in range(3):
        wait_is_over(redis_client, BULK)
        call(fleet, BULK, "failed")
        waits.append(open_for_seconds(redis_client, BULK))
    assert waits == [100, 200, 350, 350]
    with pytest.raises(HeldBack):
        fleet.enter(BULK, 1.0)


def test_trial_of_a_dead_worker_is_given_to_another_call(fleet, redis_client):
    # Given a trial that never ended
    open_circuit(fleet, BULK)
    wait_is_over(redis_client, BULK)
    _, lost = fleet.enter(BULK, 1.0)
    with pytest.raises(HeldBack, match="being tried"):
        fleet.enter(BULK, 1.0)
    # When its time has run out, Then another call goes out as the trial
    trial_is_over(redis_client, BULK)
    _, ticket = fleet.enter(BULK, 1.0)
    # And the late result of the first trial changes nothing
    fleet.leave(BULK, lost, "answered", 0)
    assert redis_client.hexists(circuit_key(BULK), "open_until")
    fleet.leave(BULK, ticket, "answered", 0)
    assert not redis_client.exists(circuit_key(BULK))


def test_interrupted_trial_is_given_to_the_next_call(fleet, redis_client):
    open_circuit(fleet, BULK)
    wait_is_over(redis_client, BULK)
    first = call(fleet, BULK, "unknown")
    assert fleet.enter(BULK, 1.0)[1] not in ("", first)


def test_call_begun_before_the_opening_does_not_change_the_circuit(fleet, redis_client):
    # Given two calls under way when the circuit opens
    slow = [fleet.enter(BULK, 1.0)[1] for _ in range(2)]
    open_circuit(fleet, BULK)
    before = redis_client.hgetall(circuit_key(BULK))
    # When one is answered and the other is lost
    fleet.leave(BULK, slow[0], "answered", 0)
    fleet.leave(BULK, slow[1], "failed", 0)
    # Then the circuit is unchanged
    assert redis_client.hgetall(circuit_key(BULK)) == before


def test_safety_call_closes_its_circuit_and_extends_it_only_after_the_wait(fleet, redis_client):
    # Given an open circuit for safety calls, which continue to go out
    open_circuit(fleet, SAFETY)
    call(fleet, SAFETY, "failed")
    assert open_for_seconds(redis_client, SAFETY) == 100
    # When a call fails after the wait, Then the circuit stays open for longer
    wait_is_over(redis_client, SAFETY)
    call(fleet, SAFETY, "failed")
    assert open_for_seconds(redis_client, SAFETY) == 200
    # And the first answered call closes it
    call(fleet, SAFETY, "answered")
    assert not redis_client.exists(circuit_key(SAFETY))


def test_wait_is_cut_at_its_maximum(fleet, redis_client):
    # Given a Redis that took over, with an earlier clock
    open_circuit(fleet, BULK)
    redis_client.hset(circuit_key(BULK), "open_until", 10**14)
    with pytest.raises(HeldBack):
        fleet.enter(BULK, 1.0)
    # Then the circuit waits no longer than the maximum
    assert float(redis_client.hget(circuit_key(BULK), "open_until")) < 10**13


def test_jobs_held_back_by_one_circuit_return_spread_out(fleet):
    # Given an open circuit
    open_circuit(fleet, BULK)
    # When a hundred jobs are held back
    delays = []
    for _ in range(100):
        with pytest.raises(HeldBack) as caught:
            fleet.enter(BULK, 1.0)
        delays.append(caught.value.delay_seconds)
    # Then no job returns before the circuit may be tried, and they return spread out
    assert min(delays) > POLICY.open_seconds - 30
    assert max(delays) - min(delays) > 10
    assert len({round(one) for one in delays}) > 10


def test_calls_are_spaced_by_the_accounts_rate(redis_client):
    # Given a rate of one call in two seconds, and twenty calls at once from two processes
    fleet, other = (circuits(redis_client, per_second=0.5) for _ in range(2))
    waits = [one.enter(MONEY, 100.0)[0] for one in (fleet, other) * 10]
    # Then the first goes out at once, and each of the others at a different time
    assert waits[0] == 0.0
    assert 25 < waits[-1] <= 19 * 2 - 0.2
    assert len({round(wait) for wait in waits}) > 15


def test_call_is_postponed_when_the_rate_limit_is_too_far_ahead(redis_client):
    # Given a rate that is used up
    fleet = circuits(redis_client, per_second=0.1)
    assert fleet.enter(BULK, 1.0)[0] == 0.0
    # When many calls are refused, Then they do not lengthen the next call's wait
    for _ in range(50):
        with pytest.raises(HeldBack, match="rate") as caught:
            fleet.enter(BULK, 1.0)
    assert caught.value.delay_seconds < 16


def test_each_account_and_class_has_its_own_rate(redis_client):
    fleet = circuits(redis_client, per_second=1)
    with pytest.raises(HeldBack):
        for _ in range(5):
            fleet.enter(BULK, 0.5)
    for route in (MONEY, ProviderChannel(Provider.TWILIO, "AC2", RequestClass.BULK), SAFETY):
        assert fleet.enter(route, 0.5)[0] == 0.0


def test_hold_keeps_the_account_back_in_its_class_and_less_urgent_ones(urls, fleet, redis_client):
    # Given a provider that asked a money call to wait
    call(fleet, MONEY, "answered", hold_seconds=20)
    # Then the whole fleet waits, in this class and in bulk, for that account only
    with connect(urls.redis_url) as client:
        elsewhere = circuits(client)
        for route in (MONEY, BULK):
            with pytest.raises(HeldBack) as caught:
                elsewhere.enter(route, 1.0)
            assert 15 < caught.value.delay_seconds <= 31
        elsewhere.enter(SAFETY, 1.0)
        elsewhere.enter(ProviderChannel(Provider.TWILIO, "AC2", RequestClass.BULK), 1.0)
    # And when the hold is over, calls go out one after the other
    holds_are_over(redis_client)
    assert fleet.enter(MONEY, 1.0)[0] == 0.0


def test_shorter_hold_does_not_end_a_longer_one(fleet):
    call(fleet, BULK, "answered", hold_seconds=40)
    fleet.leave(BULK, "", "answered", 1)
    with pytest.raises(HeldBack) as caught:
        fleet.enter(BULK, 1.0)
    assert caught.value.delay_seconds > 30


def test_hold_is_bounded_whatever_the_provider_requests(fleet):
    call(fleet, BULK, "answered", hold_seconds=86_400)
    with pytest.raises(HeldBack) as caught:
        fleet.enter(BULK, 1.0)
    assert caught.value.delay_seconds <= under_test.HOLD_SECONDS_MAX * 1.5


def test_emptied_redis_holds_nothing_back(fleet, redis_client):
    open_circuit(fleet, BULK)
    redis_client.flushall()
    redis_client.script_flush()
    assert call(fleet, BULK, "answered") == ""


def away() -> Circuits:
    return circuits(connect("unix:///nowhere/valkey.sock?db=0", timeout_seconds=0.2))


def test_safety_and_money_calls_go_on_while_redis_is_away():
    fleet = away()
    for _ in range(3):
        for route in (SAFETY, MONEY):
            assert call(fleet, route, "failed") == ""
        with pytest.raises(HeldBack, match="Redis is away"):
            fleet.enter(BULK, 1.0)


def test_silent_redis_is_waited_for_once_and_not_at_each_call(monkeypatch):
    # Given a Redis that accepts connections and never answers, and a long memory of outages
    monkeypatch.setattr(under_test, "AWAY_SECONDS", 3600.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        fleet = circuits(connect(url, timeout_seconds=0.2))
        # When many calls are made
        for _ in range(30):
            call(fleet, SAFETY, "answered")
        # Then only one connection to Redis was opened
        silent.settimeout(1)
        asked = 0
        with pytest.raises(TimeoutError):
            while True:
                silent.accept()[0].close()
                asked += 1
    assert asked == 1


def test_redis_is_used_again_when_it_is_back(monkeypatch):
    # Given a separate Valkey that was stopped, which a call noticed
    monkeypatch.setattr(under_test, "AWAY_SECONDS", 0.001)
    with server_folder() as folder:
        servers = EmbeddedServers(folder / "state", fast=True, postgres=False)
        with connect(servers.start().redis_url, timeout_seconds=5) as client:
            fleet = circuits(client)
            servers.stop()
            assert call(fleet, MONEY, "failed") == ""
            # When it is back
            servers = EmbeddedServers(folder / "state", fast=True, postgres=False)
            servers.start()
            try:
                time.sleep(0.01)
                open_circuit(fleet, MONEY)
                # Then circuits open again
                with pytest.raises(HeldBack):
                    fleet.enter(MONEY, 1.0)
            finally:
                servers.stop()


def test_one_thread_checks_redis_after_an_outage_and_others_go_on(monkeypatch):
    # Given an outage that may be checked again, and a Redis that hangs
    monkeypatch.setattr(under_test, "AWAY_SECONDS", 0.0)
    with socket.socket() as hanging, ThreadPoolExecutor(1) as pool:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen(64)
        hanging.settimeout(20)
        url = f"redis://127.0.0.1:{hanging.getsockname()[1]}/0"
        fleet = circuits(connect(url, timeout_seconds=20))
        noticed = pool.submit(fleet.enter, MONEY, 1.0)
        hanging.accept()[0].close()
        assert noticed.result() == (0.0, "")
        looks = pool.submit(fleet.enter, MONEY, 1.0)
        looked_at, _ = hanging.accept()
        # When others call while one thread checks whether Redis is back
        for _ in range(5):
            assert fleet.enter(MONEY, 1.0) == (0.0, "")
        # Then none of them waited for the check
        assert not looks.done()
        looked_at.close()
        assert looks.result() == (0.0, "")
