"""The benchmarks' parts: their webhooks are genuine and their figures correct."""

from __future__ import annotations

import pytest

from benchmarks.measure import compare, percentile_ms, timing
from benchmarks.sender import send_all
from benchmarks.webhooks import PayPalSigner, http_request, paypal_event, twilio_callbacks
from db.models import Brand, InboxEvent
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


def test_ratio_is_per_round_and_percentile_is_a_measured_value():
    values, baselines = iter([2.0, 8.0]), iter([1.0, 2.0])
    result = compare("x", "per s", 2, value=lambda: next(values), baseline=lambda: next(baselines))
    assert (result.ratio_min, result.ratio, result.ratio_max) == (2.0, 3.0, 4.0)
    durations = [n / 1000 for n in range(1, 101)]
    assert (percentile_ms(durations, 50), percentile_ms(durations, 99)) == (51, 100)
    figures = timing("x", "limit", [durations, [0.001]])
    assert (figures.p50_ms, figures.p99_ms_max, figures.baseline_p50_ms) == (26, 100, None)
