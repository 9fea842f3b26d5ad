"""The benchmarks of calls: correct measurements, and a stop at a wrong result."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import httpx
import psycopg
import pytest

from base.clock import wait_until
from base.enums import EndCause
from benchmarks.callers import Order, run_callers
from benchmarks.kill import check_wallets, killed_calls
from benchmarks.pgbench import find_pgbench
from benchmarks.reserve_commit import check_baseline, check_cycles, hand_written
from benchmarks.sender import pace
from benchmarks.status_check import ask_about, check_answers, make_calls
from benchmarks.webhooks import http_request
from db.address import driver_url
from db.models.calls import Call
from domain.calls.ending import decide_ending
from domain.calls.rows import call_and_wallet
from domain.calls.settings import Terms
from tests.support.sandbox import SANDBOX_SECONDS
from tests.workers.actors.phone import Phone

_HELD_BACK_SECONDS = 0.3


@pytest.fixture
def slow_server():
    """A server that answers each request with its path, the first one late.

    The fixture yields its port.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            is_first = True
            while asked := connection.recv(65_536):
                if is_first:
                    time.sleep(_HELD_BACK_SECONDS)
                    is_first = False
                path = asked.split(b" ")[1]
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path)
                )

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    thread.join()
    listener.close()


@contextlib.contextmanager
def tampering(bench):
    """Yield the owner's connection, which can make errors for the checks to find."""
    with psycopg.connect(driver_url(bench.owner_url), autocommit=True) as owner:
        yield owner


def test_request_that_waited_for_the_answer_before_it_is_late(slow_server):
    requests = [http_request(f"/{number}", {}, b"") for number in range(5)]
    paced = pace(slow_server, requests, per_second=100, connections=1)
    assert paced.bodies == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    # Each was due 10 ms after the one before it, and none could be sent before the first answer.
    for number, seconds in enumerate(paced.seconds):
        assert seconds >= _HELD_BACK_SECONDS - number / 100


def test_requests_are_not_sent_faster_than_their_rate(ingress):
    requests = [http_request("/readyz", {}, b"").replace(b"POST", b"GET", 1)] * 10
    began = time.monotonic()
    pace(ingress.port, requests, per_second=50, connections=5)
    assert time.monotonic() - began >= 9 / 50


def test_refused_request_ends_a_paced_benchmark(ingress):
    forged = ask_about("nobody's", "not the secret")
    with pytest.raises(SystemExit, match=r"not accepted: .* 401"):
        pace(ingress.port, [forged], per_second=100, connections=1)


def test_status_checks_are_answered_to_the_second_and_change_nothing(ingress, system):
    calls = make_calls(system, 3)
    secret = system.sandbox["vapi"]["server_secret"]
    requests = [ask_about(call_id, secret) for call_id in calls * 2]
    paced = pace(ingress.port, requests, per_second=200, connections=2)
    check_answers(system, calls, paced.bodies)
    assert len(paced.bodies) == 6


def test_wrong_answer_or_changed_wallet_ends_the_benchmark(system):
    calls = make_calls(system, 1)
    with pytest.raises(SystemExit, match="1 of 1 answers"):
        check_answers(system, calls, [b'{"endCall": false, "remainingSeconds": 3569}'])
    system.ask(
        "SELECT wallet_credit(organization_id, 'k', 1, 'USD', 'credit', 'x', '', now()) FROM calls"
    )
    with pytest.raises(SystemExit, match="changed 1 wallets"):
        check_answers(system, calls, [])


@pytest.mark.parametrize("method", ["holds", "domain_holds"])
def test_each_cycle_reserves_extends_and_commits_once(method, bench):
    wallets = bench.make_wallets(2)
    _, answered = run_callers(Order(bench.app_url, method, wallets, 2, 0.5), processes=1)
    assert answered
    check_cycles(bench, wallets, answered)
    with pytest.raises(SystemExit, match=f"{answered} cycles for {answered + 1}"):
        check_cycles(bench, wallets, answered + 1)


def test_cycle_without_an_extension_ends_the_benchmark(bench):
    (organization_id,) = bench.make_wallets(1)
    with tampering(bench) as owner:
        owner.execute(
            "SELECT reserve_call_credits(%s, 'c', NULL, 100, 'USD', now() + interval '1 hour',"
            " now())",
            (organization_id,),
        )
        owner.execute(
            "SELECT commit_reserved_credits(%s, 'c', 70, 'USD', now())", (organization_id,)
        )
    with pytest.raises(SystemExit, match=r"1 odd holds, \(0,\) wallets"):
        check_cycles(bench, [organization_id], 1)


def test_wallet_with_one_micro_too_much_ends_the_benchmark(bench):
    (organization_id,) = bench.make_wallets(1)
    with tampering(bench) as owner:
        owner.execute(
            "SELECT wallet_credit(%s, 'k', 1, 'USD', 'credit', 'x', '', now())", (organization_id,)
        )
    with pytest.raises(SystemExit, match=r"0 odd holds, \(1,\) wallets"):
        check_cycles(bench, [organization_id], 0)


@pytest.mark.skipif(find_pgbench() is None, reason="pgbench is not installed")
def test_baseline_does_the_same_work_and_is_checked(bench):
    assert hand_written(bench, 1) > 0
    with tampering(bench) as owner:
        owner.execute(
            "UPDATE baseline.call_wallets SET held_micros = held_micros + 1"
            " WHERE organization_id = 'org_1'"
        )
    with pytest.raises(SystemExit, match="of the baseline's wallets"):
        check_baseline(bench)


def decide(world, phone: Phone, call_id: str) -> None:
    def work(session, now):
        call, _ = call_and_wallet(session, phone.id, call_id)
        assert decide_ending(session, call, EndCause.INSUFFICIENT_FUNDS, now)

    world.do(work)


def ended_for_its_credit(world, phone: Phone) -> Call:
    call_id = phone.call()
    decide(world, phone, call_id)
    phone.run_until_over(call_id)
    return phone.row(call_id)


def test_killed_call_is_timed_by_both_sides_from_its_decision(world, system):
    row = ended_for_its_credit(world, Phone(world))
    (killed,) = killed_calls(system, talk_seconds=0)
    assert killed.reported == (row.ended_seen_at - row.end_decided_at).total_seconds()
    # The sandbox reports whole milliseconds and cuts off the rest.
    assert -0.001 < killed.ended <= killed.reported
    assert killed.late == (row.end_decided_at - row.metered_from).total_seconds()


def test_call_whose_customer_hung_up_is_not_counted_as_killed(world, system):
    # Given a call that heard the closing message, and whose customer hung up earlier
    phone = Phone(world)
    call_id = phone.call()
    provider_call_id = str(phone.row(call_id).provider_call_id)
    control_url = phone.seen(provider_call_id)["call"]["monitor"]["controlUrl"]
    httpx.post(control_url, json={"type": "say", "content": Terms().ending_text}, trust_env=False)
    assert wait_until(lambda: phone.seen(provider_call_id)["spoken"], limit_seconds=SANDBOX_SECONDS)
    world.sandbox.control("POST", f"/vapi/calls/{provider_call_id}/end", {})
    # When its end is decided and confirmed
    decide(world, phone, call_id)
    phone.run_until_over(call_id)
    # Then
    with pytest.raises(SystemExit, match="customer-ended-call"):
        killed_calls(system, talk_seconds=0)


def test_call_with_another_spoken_text_ends_the_benchmark(world, system):
    phone = Phone(world)
    phone.terms(ending_text="Please hold the line.")
    ended_for_its_credit(world, phone)
    with pytest.raises(SystemExit, match="Please hold the line"):
        killed_calls(system, talk_seconds=0)


def test_killed_call_is_charged_exactly(world, system):
    phone = Phone(world, micros=1_000_000)
    ended_for_its_credit(world, phone)
    check_wallets(system, 1_000_000)
    with pytest.raises(SystemExit, match="1 wallets"):
        check_wallets(system, 1_000_001)


def test_call_charged_one_micro_too_much_ends_the_benchmark(world, system):
    row = ended_for_its_credit(world, Phone(world))
    system.ask("UPDATE calls SET cost_micros = cost_micros + 1 WHERE id = %s", row.id)
    with pytest.raises(SystemExit, match="wrong"):
        killed_calls(system, talk_seconds=0)
