"""The benchmarks' parts: their webhooks are genuine and their figures correct."""

from __future__ import annotations

import pytest

from benchmarks.empty_actors import QUEUE
from benchmarks.measure import compare, measure_in_turns, percentile_ms, timing
from benchmarks.sender import send_all
from benchmarks.usual_server import usual_store
from benchmarks.webhooks import (
    PayPalSigner,
    changing_event,
    http_request,
    ignored_event,
    paypal_event,
    twilio_callbacks,
)
from db.models import Brand, InboxEvent, Job
from db.redis.client import NAMESPACE
from providers.errors import ForgedWebhook
from providers.paypal.webhook import transmission_of
from tests.support.world import make_organization


def test_signed_webhooks_are_stored_once_each_over_open_connections(ingress, world):
    signer = PayPalSigner(world.sandbox.info["paypal"])
    requests = signer.requests(
        [paypal_event("PAYMENT.SALE.PENDING", {"id": f"8VC{n}"}) for n in range(20)]
    )
    sent = send_all(ingress.port, requests, connections=4)
    assert sent.answered == len(world.read(InboxEvent, source="paypal")) == 20


def test_callbacks_are_genuine(ingress, world, settings):
    organization_id = make_organization(world.database)
    account = world.sandbox.control("POST", "/twilio/subaccounts", {"friendly_name": "one"})

    def brand(session, now):
        session.add(
            Brand(
                id="brd_one",
                organization_id=organization_id,
                name="one",
                twilio_subaccount_sid=account["sid"],
                created_at=now,
            )
        )

    world.do(brand)
    requests = twilio_callbacks(6, [(account["sid"], account["auth_token"])], settings.public_url)
    assert send_all(ingress.port, requests, connections=2).answered == 6
    assert len(world.read(InboxEvent, source="twilio")) == 6


def test_refused_request_ends_a_benchmark(ingress):
    request = http_request("/webhooks/paypal", {"Content-Type": "application/json"}, b"{}")
    with pytest.raises(SystemExit, match="401"):
        send_all(ingress.port, [request], connections=1)


def test_usual_handler_proves_stores_and_sends(world, settings, redis_client):
    signer = PayPalSigner(world.sandbox.info["paypal"])
    head, body = signer.requests([changing_event(1)])[0].split(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    transmission = transmission_of(dict(line.split(": ", 1) for line in lines))
    with usual_store(settings) as store:
        with pytest.raises(ForgedWebhook):
            store(transmission, body + b" ")
        assert world.read(InboxEvent, source="paypal") == []
        store(transmission, body)
    (event,) = world.read(InboxEvent, source="paypal")
    assert event.body == body
    assert redis_client.llen(f"{NAMESPACE}:{QUEUE}") == 1


@pytest.mark.parametrize("build, queue", [(ignored_event, None), (changing_event, "safety")])
def test_events_of_both_kinds_are_stored_as_they_should(build, queue, ingress, world):
    signer = PayPalSigner(world.sandbox.info["paypal"])
    requests = signer.requests([build(number) for number in range(3)])
    send_all(ingress.port, requests, connections=1)
    outcome = None if queue else "ignored"
    assert [event.outcome for event in world.read(InboxEvent)] == [outcome] * 3
    jobs = [job.queue for job in world.read(Job, name="process_event")]
    assert jobs == [queue] * (3 if queue else 0)


def test_measurements_take_turns_in_an_alternating_order():
    order = []
    measures = {name: lambda name=name: float(len(order.append(name) or order)) for name in "abc"}
    figures = measure_in_turns(2, measures)
    assert "".join(order) == "cbaabc"
    assert figures == {"c": [1.0, 6.0], "b": [2.0, 5.0], "a": [3.0, 4.0]}


def test_ratio_is_per_round_and_percentile_is_a_measured_value():
    values, baselines = iter([2.0, 8.0]), iter([1.0, 2.0])
    result = compare("x", "per s", 2, value=lambda: next(values), baseline=lambda: next(baselines))
    assert (result.ratio_min, result.ratio, result.ratio_max) == (2.0, 3.0, 4.0)
    durations = [n / 1000 for n in range(1, 101)]
    assert (percentile_ms(durations, 50), percentile_ms(durations, 99)) == (51, 100)
    figures = timing("x", "limit", [durations, [0.001]])
    assert (figures.p50_ms, figures.p99_ms_max, figures.baseline_p50_ms) == (26, 100, None)
