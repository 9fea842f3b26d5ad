"""Each error is answered with its code's problem, and each code is documented."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from base.money import InvalidAmount
from base.operators import Operator
from base.outcomes import HeldBack, NotYet, OutcomeUnknown, ProviderUnavailable, Refused
from base.problems.calls import CALL_NOT_FOUND, CALL_SETTLED, INVALID_DURATION, NO_RATE
from base.problems.details import Problem
from base.problems.registry import CODES
from base.problems.requests import (
    API_NOT_CONFIGURED,
    BODY_TOO_LARGE,
    FORBIDDEN,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    OUTCOME_UNKNOWN,
    TEMPORARILY_UNAVAILABLE,
    UNAUTHENTICATED,
    UNSUPPORTED_MEDIA_TYPE,
    UNVERIFIED_WEBHOOK,
)
from base.problems.wallet import IDEMPOTENCY_CONFLICT, INVALID_AMOUNT, WALLET_NOT_FOUND
from base.settings import Settings
from db.busy import DatabaseBusy
from db.inbox.batcher import InboxUnavailable
from domain.calls.merging import PairedOtherwise
from domain.calls.rates import remove_rate
from domain.calls.rows import CallNotFound
from domain.calls.settlement import CallSettled, InvalidDuration, NotSettled
from domain.wallet.ledger import WalletNotFound
from ingress.api.endpoint import ApiEndpoint
from ingress.api.tokens import BadToken, NotConfigured, Tokens
from ingress.calls.deadline import TooLate
from ingress.problems import ERROR_CODES, refusal_for
from providers.errors import (
    AnswerTooLarge,
    CertificateUnavailable,
    CredentialsRejected,
    ForgedWebhook,
    MalformedWebhook,
    ProviderSilent,
)
from tests.ingress.api.backend import COMMIT, RESERVE, is_problem
from tests.ingress.calls.callers import vapi_headers

STATUS_CHECK = "/api/vapi/webhook/status-check"

#: Errors without a code of their own, and subclasses of them.
PLAIN_ERRORS = [
    (NotConfigured(), API_NOT_CONFIGURED),
    (BadToken("no"), UNAUTHENTICATED),
    (ForgedWebhook("no"), UNVERIFIED_WEBHOOK),
    (MalformedWebhook("no"), MALFORMED_REQUEST),
    (CertificateUnavailable("no"), TEMPORARILY_UNAVAILABLE),
    (CredentialsRejected("no"), TEMPORARILY_UNAVAILABLE),
    (ProviderUnavailable("no"), TEMPORARILY_UNAVAILABLE),
    (ProviderSilent("no"), TEMPORARILY_UNAVAILABLE),
    (AnswerTooLarge("no"), TEMPORARILY_UNAVAILABLE),
    (InboxUnavailable("no"), TEMPORARILY_UNAVAILABLE),
    (NotYet("no"), TEMPORARILY_UNAVAILABLE),
    (HeldBack("no"), TEMPORARILY_UNAVAILABLE),
    (DatabaseBusy("no"), TEMPORARILY_UNAVAILABLE),
    (TooLate(), TEMPORARILY_UNAVAILABLE),
    (OutcomeUnknown("no"), OUTCOME_UNKNOWN),
]
#: Errors that an API endpoint's function raises.
WORK_ERRORS = [
    (CallNotFound("c"), CALL_NOT_FOUND),
    (CallSettled("c"), CALL_SETTLED),
    (InvalidAmount("no"), INVALID_AMOUNT),
    (InvalidDuration("c"), INVALID_DURATION),
    (NotSettled("c", NO_RATE), NO_RATE),
    (PairedOtherwise("c", "v"), IDEMPOTENCY_CONFLICT),
    (WalletNotFound("org"), WALLET_NOT_FOUND),
    *((Refused(code, "more"), code) for code in CODES.values()),
    (DatabaseBusy("no"), TEMPORARILY_UNAVAILABLE),
    (OutcomeUnknown("no"), OUTCOME_UNKNOWN),
]


@pytest.fixture
def answers_of(world, signer):
    """Answer requests of one organization, of which each one's work is given."""
    endpoint = ApiEndpoint(Tokens(Settings(api_jwks_file=signer.path)), world.database)

    async def answers(works):
        routes = [
            Route(f"/{number}", endpoint.endpoint("calls:read", work))
            for number, work in enumerate(works)
        ]
        transport = httpx.ASGITransport(Starlette(routes=routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = signer.headers("org_one")
            return [await client.get(f"/{n}", headers=headers) for n in range(len(routes))]

    return lambda works: asyncio.run(answers(works))


def raising(error: Exception):
    def work(session, asked, now):
        raise error

    return work


def test_each_error_without_a_code_is_mapped_to_one():
    assert {type(error) for error, _ in PLAIN_ERRORS} >= set(ERROR_CODES)
    for error, code in PLAIN_ERRORS:
        assert refusal_for(error, "why").problem == Problem(code, "why"), error


def test_an_error_of_the_domain_is_answered_with_its_code(answers_of):
    answers = answers_of([raising(error) for error, _ in WORK_ERRORS])
    for answer, (error, code) in zip(answers, WORK_ERRORS, strict=True):
        assert answer.headers["content-type"] == "application/problem+json", error
        assert answer.status_code == code.status, error
        assert answer.json() == Problem(code, answer.json().get("detail", "")).to_dict()
        must_wait = code in (TEMPORARILY_UNAVAILABLE, OUTCOME_UNKNOWN) and "Cause" in answer.text
        assert ("retry-after" in answer.headers) == must_wait, error


def test_a_returned_refusal_commits_and_a_raised_one_rolls_back(answers_of, world):
    # Given two customers, and work that changes a wallet and is then refused
    returned, raised = world.customer().id, world.customer().id

    def change(session, organization_id):
        session.connection().exec_driver_sql(
            "UPDATE organizations SET name = 'changed' WHERE id = %(org)s", {"org": organization_id}
        )

    def returning(session, asked, now):
        change(session, returned)
        return Refused(CALL_SETTLED, "c")

    def changing(session, asked, now):
        change(session, raised)
        raise Refused(CALL_SETTLED, "c")

    # When both are requested
    answers = answers_of([returning, changing])
    # Then both have the same answer, and only the returned refusal kept the change
    assert [answer.json() for answer in answers] == [Problem(CALL_SETTLED, "c").to_dict()] * 2
    with world.database.engine.connect() as connection:
        changed = connection.exec_driver_sql("SELECT id FROM organizations WHERE name = 'changed'")
        assert changed.scalars().all() == [returned]


def test_every_code_is_described_without_a_token(ingress):
    for code in CODES.values():
        answer = ingress.client.get(code.path)
        assert (answer.status_code, answer.json()) == (
            200,
            {
                "type": code.path,
                "code": str(code),
                "status": code.status,
                "title": code.title,
                "money": code.money,
                "action": code.action,
            },
        )


@pytest.mark.parametrize("name", ["credit-gone", "INSUFFICIENT_FUNDS", "Frozen-Wallet", "%00"])
def test_an_unknown_code_is_not_found(ingress, name):
    assert is_problem(ingress.client.get(f"/problems/{name}"), NOT_FOUND)


def test_requests_that_no_rule_of_the_domain_decides_have_codes(backend):
    client, mine = backend.client, backend.headers
    json_type = {**mine, "Content-Type": "application/json"}
    assert is_problem(client.get("/api/billing/wallet"), UNAUTHENTICATED)
    wrong = {**mine, "X-Org-Id": "org_other"}
    assert is_problem(client.get("/api/billing/wallet", headers=wrong), FORBIDDEN)
    large = client.post(RESERVE, content=b" " * 70_000, headers=json_type)
    assert is_problem(large, BODY_TOO_LARGE)
    xml = client.post(RESERVE, content=b"<a/>", headers={**mine, "Content-Type": "text/xml"})
    assert is_problem(xml, UNSUPPORTED_MEDIA_TYPE)
    unknown, delete = client.get("/nothing"), client.delete("/api/billing/wallet")
    assert (unknown.status_code, unknown.json()["code"]) == (404, NOT_FOUND)
    assert (delete.status_code, delete.json()["code"]) == (405, METHOD_NOT_ALLOWED)
    assert "GET" in delete.headers["allow"]


def test_refusals_of_the_domain_have_codes_over_http(backend, signer):
    client = backend.client
    assert is_problem(backend.reserve(estimatedMinutes=0), INVALID_DURATION)
    assert is_problem(backend.post(STATUS_CHECK, call={"id": "other"}), CALL_NOT_FOUND)
    unknown = signer.headers("org_nobody")
    body = {"callId": "c", "estimatedMinutes": 1}
    assert is_problem(client.post(RESERVE, json=body, headers=unknown), WALLET_NOT_FOUND)
    assert is_problem(client.get("/api/billing/wallet", headers=unknown), WALLET_NOT_FOUND)
    other = {"callId": "c", "durationSeconds": 1}
    assert is_problem(client.post(COMMIT, json=other, headers=unknown), CALL_NOT_FOUND)
    backend.caller.world.do(
        lambda session, now: remove_rate(
            session, backend.caller.id, "default", operator=Operator("me", "test"), now=now
        )
    )
    assert is_problem(backend.reserve(), NO_RATE)


def test_a_webhook_that_is_refused_names_the_code(ingress):
    def post(body: bytes, **headers: str):
        return ingress.client.post("/webhooks/vapi", content=body, headers=headers)

    given = vapi_headers(ingress.sandbox)
    answers = [
        post(b"{}", **{"Content-Type": "application/json"}),
        post(b"[]", **given),
        post(b"{}", **{**given, "Content-Type": "text/plain"}),
    ]
    codes = (UNVERIFIED_WEBHOOK, MALFORMED_REQUEST, UNSUPPORTED_MEDIA_TYPE)
    for answer, code in zip(answers, codes, strict=True):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json() == Problem(code, answer.json()["detail"]).to_dict()
        assert answer.status_code == code.status
