from __future__ import annotations

import ctypes
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from base.clock import wait_until
from base.enums import Provider, RefundState, SubscriptionStatus
from base.facts import PaymentFacts, RefundFacts, SubscriptionFacts
from base.money import InvalidAmount
from base.outcomes import ProviderUnavailable, Refused
from providers.errors import CredentialsRejected
from tests.providers.support import Asked, Loopback, Reply, json_reply, sample

SUBSCRIPTION = "I-BW452GLLEP1G"
CAPTURE, REFUND = "5LK72275CG489890D", "8VC964970N548345V"
AT = datetime(2026, 5, 4, 11, 0, tzinfo=UTC)


class PayPal:
    """PayPal as a test defines it: its answers by path, and the token it accepts now."""

    def __init__(self, loopback: Loopback) -> None:
        self.replies: dict[str, Reply | Callable[[], Reply | None] | None] = {}
        self.token = "T1"
        self.expires_in: object = 32400
        self.loopback = loopback
        loopback.answer = self._answer

    def _answer(self, asked: Asked) -> Reply | None:
        if asked.path == "/v1/oauth2/token":
            assert asked.headers["Authorization"] == "Basic Y2xpZW50OnNlY3JldA=="
            assert asked.body == b"grant_type=client_credentials"
            return json_reply({"access_token": self.token, "expires_in": self.expires_in})
        if asked.headers["Authorization"] != f"Bearer {self.token}":
            return json_reply({"error": "invalid_token"}, 401)
        reply = self.replies.get(asked.path, Reply(404))
        return reply() if callable(reply) else reply

    def holds(self, path: str, **members: Any) -> None:
        self.replies[path] = json_reply({"id": path.rsplit("/", 1)[1], **members})

    def capture(
        self, status: str, value: str = "10.00", currency: str = "USD", **more: Any
    ) -> None:
        amount = {"value": value, "currency_code": currency}
        self.holds(f"/v2/payments/captures/{CAPTURE}", status=status, amount=amount, **more)

    def refund(self, status: str = "COMPLETED", value: str = "3.00", **more: Any) -> None:
        links = [
            {"href": "https://evil.example/self", "rel": "self"},
            {"href": f"https://api.paypal.com/v2/payments/captures/{CAPTURE}", "rel": "up"},
        ]
        amount = {"value": value, "currency_code": "USD"}
        members = {"status": status, "amount": amount, "links": links, **more}
        self.holds(f"/v2/payments/refunds/{REFUND}", **members)


@pytest.fixture
def paypal(loopback: Loopback) -> PayPal:
    return PayPal(loopback)


def total(value: str, currency: str = "USD") -> dict[str, Any]:
    return {"total_refunded_amount": {"value": value, "currency_code": currency}}


@pytest.mark.parametrize(
    ("status", "failed", "expected"),
    [
        ("APPROVAL_PENDING", 0, SubscriptionStatus.PENDING),
        ("APPROVED", 0, SubscriptionStatus.PENDING),
        ("ACTIVE", 0, SubscriptionStatus.ACTIVE),
        ("ACTIVE", 1, SubscriptionStatus.PAST_DUE),
        ("ACTIVE", "2", SubscriptionStatus.PAST_DUE),
        ("ACTIVE", None, SubscriptionStatus.ACTIVE),
        ("SUSPENDED", 2, SubscriptionStatus.SUSPENDED),
        ("CANCELLED", 2, SubscriptionStatus.CANCELLED),
        ("EXPIRED", 0, SubscriptionStatus.EXPIRED),
    ],
)
def test_subscription_is_mapped_to_our_terms(api, paypal, status, failed, expected):
    paypal.holds(
        f"/v1/billing/subscriptions/{SUBSCRIPTION}",
        status=status,
        plan_id="P-5ML",
        custom_id="org_1",
        status_update_time="2026-05-04T11:00:00Z",
        billing_info={"failed_payments_count": failed},
    )
    assert api.get_subscription(SUBSCRIPTION) == SubscriptionFacts(
        provider=Provider.PAYPAL,
        external_id=SUBSCRIPTION,
        status=expected,
        organization_id="org_1",
        plan_external_id="P-5ML",
        status_changed_at=datetime(2026, 5, 4, 11, 0, tzinfo=UTC),
    )


def test_paypals_own_example_of_a_subscription_is_read(api, paypal):
    body = sample("paypal/api_post_v1_billing_subscriptions_200.json").read_bytes()
    paypal.replies[f"/v1/billing/subscriptions/{SUBSCRIPTION}"] = Reply(200, body)
    facts = api.get_subscription(SUBSCRIPTION)
    assert facts.status is SubscriptionStatus.PENDING
    assert facts.plan_external_id == "P-5ML4271244454362WXNWU5NQ"
    assert facts.organization_id is None


@pytest.mark.parametrize("status", ["FROZEN", "active", "", None, ["ACTIVE"]])
def test_unknown_status_is_refused(api, paypal, status):
    paypal.holds(f"/v1/billing/subscriptions/{SUBSCRIPTION}", status=status)
    paypal.capture(status)
    for ask in (
        lambda: api.get_subscription(SUBSCRIPTION),
        lambda: api.get_payment("capture", CAPTURE),
    ):
        with pytest.raises(Refused) as caught:
            ask()
        assert caught.value.code == "UNKNOWN_STATUS"


def test_unknown_object_raises_provider_unavailable(api, paypal):
    for ask in (
        lambda: api.get_subscription(SUBSCRIPTION),
        lambda: api.get_payment("capture", CAPTURE),
        lambda: api.get_payment("refund", REFUND),
    ):
        with pytest.raises(ProviderUnavailable, match="does not know"):
            ask()


@pytest.mark.parametrize("evil", ["", "../x", "a/b", "a?b", "a%2fb", "I-1\n", "é", "a" * 51, "-"])
def test_invalid_id_is_refused_without_a_request(api, paypal, loopback, evil):
    for ask in (
        lambda: api.get_subscription(evil),
        lambda: api.get_payment("capture", evil),
        lambda: api.get_payment("refund", evil),
    ):
        with pytest.raises(Refused) as caught:
            ask()
        assert caught.value.code == "INVALID_ID"
    assert loopback.asked == []


@pytest.mark.parametrize(
    ("status", "captured", "refunded"),
    [
        ("COMPLETED", 10_000_000, 0),
        ("PARTIALLY_REFUNDED", 10_000_000, 0),
        ("REFUNDED", 10_000_000, 10_000_000),
        ("PENDING", 0, 0),
        ("DECLINED", 0, 0),
        ("FAILED", 0, 0),
    ],
)
def test_only_a_completed_capture_counts_as_captured(api, paypal, status, captured, refunded):
    paypal.capture(status, custom_id="org_1")
    assert api.get_payment("capture", CAPTURE) == PaymentFacts(
        Provider.PAYPAL, CAPTURE, "org_1", "USD", captured, refunded
    )


@pytest.mark.parametrize(
    ("capture", "refund", "more", "state", "total_micros"),
    [
        ("PARTIALLY_REFUNDED", "COMPLETED", {"seller_payable_breakdown": total("5.00")},
         RefundState.COMPLETED, 5_000_000),
        ("PARTIALLY_REFUNDED", "PENDING", {}, RefundState.PENDING, None),
        ("PARTIALLY_REFUNDED", "PENDING", {"seller_payable_breakdown": {}},
         RefundState.PENDING, None),
        ("COMPLETED", "FAILED", {"seller_payable_breakdown": total("3.00")},
         RefundState.FAILED, 3_000_000),
        ("COMPLETED", "CANCELLED", {}, RefundState.FAILED, None),
        ("REFUNDED", "COMPLETED", {}, RefundState.COMPLETED, None),
    ],
)  # fmt: skip
def test_refund_has_its_own_amount_and_state_beside_its_capture(
    api, paypal, capture, refund, more, state, total_micros
):
    paypal.capture(capture)
    paypal.refund(refund, create_time="2026-05-04T11:00:00Z", **more)
    facts = api.get_payment("refund", REFUND)
    assert (facts.external_id, facts.captured_micros) == (CAPTURE, 10_000_000)
    assert facts.refunded_micros == (10_000_000 if capture == "REFUNDED" else 0)
    assert facts.refund == RefundFacts(REFUND, 3_000_000, total_micros, state, AT, AT)


def test_payment_has_the_time_of_its_last_update(api, paypal):
    paypal.capture("COMPLETED", update_time="2026-05-04T04:00:00-07:00")
    paypal.refund(create_time="2026-05-04T10:00:00Z", update_time="2026-05-04T11:00:00Z")
    facts = api.get_payment("refund", REFUND)
    assert facts.stated_at == AT
    assert facts.refund is not None
    assert facts.refund.stated_at == AT
    assert facts.refund.made_at == datetime(2026, 5, 4, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", ["DONE", "completed", None])
def test_refund_with_an_unknown_state_is_refused(api, paypal, status):
    paypal.capture("COMPLETED")
    paypal.refund(status)
    with pytest.raises(Refused) as caught:
        api.get_payment("refund", REFUND)
    assert caught.value.code == "UNKNOWN_STATUS"


@pytest.mark.parametrize(
    ("more", "ordered"),
    [
        ({"supplementary_data": {"related_ids": {"order_id": "5O190127TN364715T"}}}, True),
        ({"supplementary_data": {"related_ids": {"order_id": None}}}, False),
        ({"supplementary_data": {"related_ids": []}}, False),
        ({"supplementary_data": "x"}, False),
        ({}, False),
    ],
)
def test_payment_shows_whether_an_order_made_it(api, paypal, more, ordered):
    paypal.capture("COMPLETED", **more)
    assert api.get_payment("capture", CAPTURE).ordered is ordered


def test_refund_in_another_currency_is_refused(api, paypal):
    paypal.capture("COMPLETED")
    paypal.refund(seller_payable_breakdown=total("5.00", "EUR"))
    with pytest.raises(Refused) as caught:
        api.get_payment("refund", REFUND)
    assert caught.value.code == "CURRENCY_MISMATCH"


@pytest.mark.parametrize(
    "links",
    [
        None,
        [],
        ["up"],
        [{"rel": "up"}],
        [{"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/"}],
        [{"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/a/../b"}],
        [{"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/..%2fx"}],
        [{"rel": "up", "href": f"https://api.paypal.com/v2/payments/captures/{CAPTURE}?x"}],
        [{"rel": "self", "href": f"https://api.paypal.com/v2/payments/captures/{CAPTURE}"}],
    ],
)
def test_refund_without_a_known_capture_is_refused(api, paypal, links):
    paypal.capture("COMPLETED")
    paypal.refund(links=links)
    with pytest.raises(Refused) as caught:
        api.get_payment("refund", REFUND)
    assert caught.value.code == "NO_CAPTURE"


def test_url_in_an_answer_is_never_requested(api, paypal, loopback):
    # Given a refund whose link names another host
    paypal.capture("COMPLETED")
    href = f"http://10.24.121.37/v2/payments/captures/{CAPTURE}"
    paypal.refund(links=[{"rel": "up", "href": href}])
    # When it is read, Then its capture is still requested from PayPal
    api.get_payment("refund", REFUND)
    assert loopback.paths("/v2") == [
        f"/v2/payments/refunds/{REFUND}",
        f"/v2/payments/captures/{CAPTURE}",
    ]


@pytest.mark.parametrize(
    "amount",
    [None, {}, {"value": 10.0, "currency_code": "USD"}, {"value": "-1.00", "currency_code": "USD"},
     {"value": "1.50", "currency_code": "HUF"}, {"value": "1.00", "currency_code": "KWD"}],
)  # fmt: skip
def test_amount_that_is_not_exact_is_refused(api, paypal, amount):
    paypal.holds(f"/v2/payments/captures/{CAPTURE}", status="COMPLETED", amount=amount)
    with pytest.raises(InvalidAmount):
        api.get_payment("capture", CAPTURE)


def test_another_kind_is_refused(api, paypal):
    with pytest.raises(Refused):
        api.get_payment("sale", CAPTURE)


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(500),
        Reply(429),
        Reply(200, b"<html>"),
        json_reply([]),
        json_reply({"id": "I-2"}),
    ],
    ids=["lost", "500", "429", "html", "list", "another"],
)
def test_invalid_answer_is_an_outage(api, paypal, reply):
    paypal.replies[f"/v1/billing/subscriptions/{SUBSCRIPTION}"] = reply
    with pytest.raises(ProviderUnavailable):
        api.get_subscription(SUBSCRIPTION)


def test_request_succeeds_after_a_short_failure(api, paypal, loopback):
    paypal.capture("COMPLETED")
    good = paypal.replies[f"/v2/payments/captures/{CAPTURE}"]
    replies = iter([Reply(502, b"<html>"), None, good])
    paypal.replies[f"/v2/payments/captures/{CAPTURE}"] = lambda: next(replies)
    assert api.get_payment("capture", CAPTURE).captured_micros == 10_000_000
    assert len(loopback.paths("/v1/oauth2/token")) == 1


def test_unexpected_4xx_is_an_outage_and_no_refusal(api, paypal, loopback):
    paypal.replies[f"/v1/billing/subscriptions/{SUBSCRIPTION}"] = json_reply({}, 422)
    with pytest.raises(ProviderUnavailable, match="422"):
        api.get_subscription(SUBSCRIPTION)
    assert len(loopback.paths("/v1/billing")) == 3


def test_forbidden_answer_raises_credentials_rejected(api, paypal):
    paypal.replies[f"/v1/billing/subscriptions/{SUBSCRIPTION}"] = json_reply({}, 403)
    with pytest.raises(CredentialsRejected):
        api.get_subscription(SUBSCRIPTION)


def test_threads_share_one_token_until_it_expires(api, paypal, loopback):
    paypal.capture("COMPLETED")
    threads = [
        threading.Thread(target=api.get_payment, args=("capture", CAPTURE)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loopback.paths("/v2")) == 8
    assert len(loopback.paths("/v1/oauth2/token")) == 1


class TimeIsUp(BaseException):
    """An exception raised in a thread from outside, as a worker's time limit is."""


def test_time_limit_of_a_thread_that_waits_for_the_token_blocks_no_other(api, paypal):
    # Given a thread that waits while another one fetches the token
    paypal.capture("COMPLETED")
    struck = []

    def wait_for_token():
        try:
            api.get_payment("capture", CAPTURE)
        except TimeIsUp as error:
            struck.append(error)

    def waits():
        frame = sys._current_frames().get(waiting.ident)
        return frame is not None and frame.f_code.co_name == "_current_token"

    with api._lock:
        waiting = threading.Thread(target=wait_for_token)
        waiting.start()
        assert wait_until(waits, limit_seconds=10)
        # When its time limit is raised, which takes effect as soon as it has the lock
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(waiting.ident), ctypes.py_object(TimeIsUp)
        )
    waiting.join(timeout=10)
    # Then a request from another thread gets its answer
    assert len(struck) == 1
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(api.get_payment, "capture", CAPTURE).result(timeout=20)


def test_token_is_renewed_shortly_before_it_ends(api, paypal, loopback):
    # Given tokens whose lifetime is no longer than the margin
    paypal.capture("COMPLETED")
    paypal.expires_in = 60
    api.get_payment("capture", CAPTURE)
    api.get_payment("capture", CAPTURE)
    assert len(loopback.paths("/v1/oauth2/token")) == 2


def test_refused_token_is_renewed_once(api, paypal, loopback):
    # Given a token that PayPal has revoked
    paypal.capture("COMPLETED")
    api.get_payment("capture", CAPTURE)
    paypal.token = "T2"
    # When it is used, Then it is renewed, and the request is repeated
    assert api.get_payment("capture", CAPTURE).captured_micros == 10_000_000
    assert len(loopback.paths("/v1/oauth2/token")) == 2


def test_refused_fresh_token_raises_credentials_rejected(api, paypal, loopback):
    paypal.replies[f"/v2/payments/captures/{CAPTURE}"] = json_reply({}, 401)
    with pytest.raises(CredentialsRejected):
        api.get_payment("capture", CAPTURE)
    assert len(loopback.paths("/v2")) == 2


@pytest.mark.parametrize("token", [None, 5, "", "a\r\nX: y", "é"])
def test_invalid_token_is_an_outage(api, loopback, token):
    loopback.answer = lambda asked: Reply(200, json.dumps({"access_token": token}).encode())
    with pytest.raises(ProviderUnavailable):
        api.get_subscription(SUBSCRIPTION)
