from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from base.enums import Provider, Queue
from base.facts import DisputeReport, OtherReport, PaymentReport, SubscriptionReport
from providers.errors import MalformedWebhook
from providers.instants import instant_of
from providers.paypal.events import parse, queue_of
from tests.providers.support import sample

AT = datetime(2026, 5, 4, 11, 0, tzinfo=UTC)
_REPORTED = [
    *(
        f"BILLING.SUBSCRIPTION.{name}"
        for name in [
            "CREATED",
            "ACTIVATED",
            "UPDATED",
            "SUSPENDED",
            "CANCELLED",
            "EXPIRED",
            "PAYMENT.FAILED",
        ]
    ),
    *(f"CUSTOMER.DISPUTE.{name}" for name in ("CREATED", "UPDATED", "RESOLVED")),
    *(f"PAYMENT.CAPTURE.{name}" for name in ("COMPLETED", "DENIED", "PENDING", "REFUNDED")),
    *(f"PAYMENT.REFUND.{name}" for name in ("PENDING", "COMPLETED", "FAILED", "CANCELLED")),
    "PAYMENT.SALE.COMPLETED",
]


def event(event_type: str, resource: object, **more: object) -> bytes:
    return json.dumps(
        {
            "id": "WH-1",
            "create_time": "2026-05-04T11:00:00Z",
            "event_type": event_type,
            "resource": resource,
            **more,
        }
    ).encode()


@pytest.mark.parametrize(
    ("name", "closing", "opening"),
    [
        ("SUSPENDED", True, False),
        ("CANCELLED", True, False),
        ("EXPIRED", True, False),
        ("CREATED", False, False),
        ("ACTIVATED", False, True),
        ("RE-ACTIVATED", False, True),
        ("UPDATED", False, False),
        ("PAYMENT.FAILED", False, False),
    ],
)
def test_subscription_event_is_closing_or_opening(name, closing, opening):
    report = parse(event(f"BILLING.SUBSCRIPTION.{name}", {"id": "I-1"}))
    assert report == SubscriptionReport(Provider.PAYPAL, "I-1", closing, AT, opening)


def test_event_type_decides_and_not_the_resources_state():
    # Given a cancellation whose resource is ACTIVE, because events can arrive out of order
    report = parse(event("BILLING.SUBSCRIPTION.CANCELLED", {"id": "I-1", "status": "ACTIVE"}))
    # Then the event's type decides
    assert isinstance(report, SubscriptionReport)
    assert report.closing


def test_subscription_fee_is_no_payment():
    report = parse(event("PAYMENT.SALE.COMPLETED", {"id": "S1", "billing_agreement_id": "I-1"}))
    assert report == SubscriptionReport(Provider.PAYPAL, "I-1", False, AT)
    assert parse(event("PAYMENT.SALE.COMPLETED", {"id": "S1"})) == OtherReport(
        "PAYMENT.SALE.COMPLETED"
    )


@pytest.mark.parametrize("name", ["COMPLETED", "DENIED", "DECLINED", "PENDING"])
def test_capture_event_names_the_capture(name):
    report = parse(event(f"PAYMENT.CAPTURE.{name}", {"id": "3C1", "amount": {"value": "9.00"}}))
    assert report == PaymentReport(Provider.PAYPAL, "capture", "3C1")


@pytest.mark.parametrize("name", ["REFUNDED", "REVERSED"])
def test_refund_event_names_the_refund_in_both_shapes(name):
    assert parse(event(f"PAYMENT.CAPTURE.{name}", {"id": "8VC"})) == PaymentReport(
        Provider.PAYPAL, "refund", "8VC"
    )
    assert parse(
        event(f"PAYMENT.CAPTURE.{name}", {"id": "8VC", "capture_id": "5LK"})
    ) == PaymentReport(Provider.PAYPAL, "refund", "8VC")


@pytest.mark.parametrize("name", ["PENDING", "COMPLETED", "FAILED", "CANCELLED"])
def test_refund_status_event_names_the_refund(name):
    assert parse(event(f"PAYMENT.REFUND.{name}", {"id": "8VC"})) == PaymentReport(
        Provider.PAYPAL, "refund", "8VC"
    )


@pytest.mark.parametrize(
    ("name", "opening"), [("CREATED", True), ("UPDATED", False), ("RESOLVED", False)]
)
def test_dispute_event_names_its_payment_and_whether_it_opens(name, opening):
    about = {"dispute_id": "PP-D-1", "disputed_transactions": [{"seller_transaction_id": "3C1"}]}
    report = parse(event(f"CUSTOMER.DISPUTE.{name}", about))
    assert report == DisputeReport(Provider.PAYPAL, "PP-D-1", ("3C1",), opening)


@pytest.mark.parametrize(
    "listed",
    [
        None,
        "x",
        [],
        ["x"],
        [{}],
        [{"seller_transaction_id": "../x"}],
    ],
)
def test_dispute_event_names_no_payment_when_its_id_is_invalid(listed):
    about = {"dispute_id": "PP-D-1", "disputed_transactions": listed}
    report = parse(event("CUSTOMER.DISPUTE.CREATED", about))
    assert report == DisputeReport(Provider.PAYPAL, "PP-D-1", (), True)


def test_dispute_event_names_every_payment_once():
    listed = [{"seller_transaction_id": one} for one in ("3C1", "3C2", "../x", "3C1")]
    about = {"dispute_id": "PP-D-1", "disputed_transactions": listed}
    report = parse(event("CUSTOMER.DISPUTE.CREATED", about))
    assert report == DisputeReport(Provider.PAYPAL, "PP-D-1", ("3C1", "3C2"), True)


def test_dispute_event_is_malformed_when_its_id_is_invalid():
    with pytest.raises(MalformedWebhook):
        parse(event("CUSTOMER.DISPUTE.CREATED", {"id": "PP-D-1"}))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "created",
            DisputeReport(Provider.PAYPAL, "PP-000-001-341-393", ("45V487086B989905H",), True),
        ),
        (
            "resolved",
            DisputeReport(Provider.PAYPAL, "PP-000-001-341-261", ("6C589962JJ4368547",), False),
        ),
    ],
)
def test_real_dispute_samples_are_parsed(path, expected):
    body = sample(f"paypal/unsigned/djpaypal_customer.dispute.{path}.json").read_bytes()
    assert parse(body) == expected


@pytest.mark.parametrize(
    "event_type",
    [
        "RISK.DISPUTE.CREATED",
        "PAYMENT.SALE.PENDING",
        "PAYMENT.SALE.REVERSED",
        "BILLING.PLAN.CREATED",
        "X.Y",
        "payment.capture.completed",
    ],
)
def test_unknown_event_is_an_other_report(event_type):
    assert parse(event(event_type, {"id": "1"})) == OtherReport(event_type)
    assert queue_of(event_type) is None


@pytest.mark.parametrize("event_type", _REPORTED)
def test_every_event_that_reports_something_has_a_queue(event_type):
    ids = {"id": "I-1", "dispute_id": "PP-D-1", "billing_agreement_id": "I-1"}
    assert not isinstance(parse(event(event_type, ids)), OtherReport)
    closes = event_type.startswith(("BILLING.", "CUSTOMER."))
    assert queue_of(event_type) == (Queue.SAFETY if closes else Queue.BILLING)


@pytest.mark.parametrize(
    "resource",
    [
        {},
        None,
        [],
        {"id": 5},
        {"id": ""},
        {"id": "../x"},
        {"id": "a" * 51},
        {"id": "I-1\n"},
        {"id": "a/b"},
    ],
)
@pytest.mark.parametrize(
    "event_type",
    ["BILLING.SUBSCRIPTION.CANCELLED", "PAYMENT.CAPTURE.COMPLETED", "PAYMENT.CAPTURE.REFUNDED"],
)
def test_event_without_the_id_it_needs_is_malformed(event_type, resource):
    with pytest.raises(MalformedWebhook):
        parse(event(event_type, resource))


@pytest.mark.parametrize("value", ["I 1", 7, ["I-1"], ""])
def test_fee_with_an_invalid_subscription_is_malformed(value):
    with pytest.raises(MalformedWebhook):
        parse(event("PAYMENT.SALE.COMPLETED", {"id": "S1", "billing_agreement_id": value}))


@pytest.mark.parametrize(
    "junk",
    [
        "2018-19-12T22:20:32.000Z",
        "2026-05-04",
        "2026-05-04T11:00:00",
        "",
        None,
        5,
        "9999-12-31T23:59:59-14:00",
    ],
)
def test_invalid_time_is_none(junk):
    assert instant_of(junk) is None
    report = parse(event("BILLING.SUBSCRIPTION.CANCELLED", {"id": "I-1"}, create_time=junk))
    assert isinstance(report, SubscriptionReport)
    assert report.occurred_at is None


@pytest.mark.parametrize(
    "text", ["2026-05-04T11:00:00Z", "2026-05-04T11:00:00.000Z", "2026-05-04T04:00:00-07:00"]
)
def test_time_is_read_as_paypal_writes_it(text):
    assert instant_of(text) == AT


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("signed/sim_subscription_cancelled_v1.body", ("I-PE7JWXKGVN0R", True)),
        ("signed/sim_subscription_cancelled_v2.body", ("I-BW452GLLEP1G", True)),
        ("signed/sim_subscription_payment_failed_v2.body", ("I-BW452GLLEP1G", False)),
        ("unsigned/djpaypal_billing.subscription.re-activated.json", (None, False)),
        ("unsigned/djpaypal_payment.sale.completed--from-subscription.json", (None, False)),
    ],
)
def test_real_subscription_samples_are_parsed(path, expected):
    report = parse(sample(f"paypal/{path}").read_bytes())
    assert isinstance(report, SubscriptionReport)
    external_id, closing = expected
    assert report.closing is closing
    assert external_id is None or report.external_id == external_id


def test_real_refund_of_the_older_shape_names_its_own_id():
    body = sample("paypal/unsigned/djpaypal_payment.capture.refunded.json").read_bytes()
    assert parse(body) == PaymentReport(Provider.PAYPAL, "refund", "8VC964970N548345V")
