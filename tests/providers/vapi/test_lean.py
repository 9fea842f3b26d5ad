"""Large messages and calls are reduced to their facts when read and when stored."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from providers.errors import MalformedWebhook
from providers.vapi import events as messages
from providers.vapi import lean
from providers.vapi.fields import read_object
from providers.vapi.mapping import call_facts
from tests.providers.support import SAMPLES
from tests.providers.vapi.support import ACCOUNT, call, report, status_update, written

PARTIES = {
    "phoneNumber": {"id": "number-2", "number": "+15005550001", "twilioAccountSid": ACCOUNT},
    "customer": {"number": "+15005550006", "name": "x" * 5_000},
}
#: Parts that no code reads, and that make a body large.
HEAVY = {
    "artifact": {"messages": [{"role": "bot", "message": "hello " * 40, "n": 1.25}] * 400},
    "transcript": "hello " * 20_000,
    "costs": [{"type": "llm", "cost": 0.5}] * 100,
}
ODD = [
    {"endedReason": "r" * 5_000},
    {"status": ["ended"], "cost": [1], "startedAt": {"at": 1}},
    {"call": call(customer=[1, 2], phoneNumber="x", assistantOverrides={"metadata": [1]})},
    {"cost": Decimal("1e999999"), "durationSeconds": Decimal("0.1931")},
]


def reading(body: bytes):
    return messages.report_of(messages.parse(body))


@pytest.mark.parametrize("more", [{}, PARTIES, *ODD])
@pytest.mark.parametrize("make", [report, status_update])
def test_large_message_is_parsed_like_a_small_one(make, more):
    # Given the same message, small and with everything that a conversation adds
    small, large = make(**more), make(**more) | HEAVY
    assert len(written(large)) > lean.LEAN_FROM_BYTES
    # Then both have the same facts, before and after they are stored
    stored = messages.stored_body(messages.parse(written(large)))
    assert reading(written(large)) == reading(written(small)) == reading(stored)
    assert len(stored) < 4_000
    # And the same bytes are always stored in the same form
    assert messages.stored_body(messages.parse(written(large))) == stored


def test_small_message_is_stored_byte_for_byte():
    body = written(report())
    assert messages.stored_body(messages.parse(body)) == body


def test_large_metadata_of_a_web_call_keeps_only_our_ids():
    ours = {"holdfast_organization": "org_1", "holdfast_call": "call_1", "holdfast_x": "y"}
    metadata = {f"key{number}": "x" * 50 for number in range(16_000)} | ours
    inner = call(type="webCall", assistantOverrides={"metadata": metadata})
    body = written(status_update(call=inner))
    assert len(body) > 1_000_000
    found = reading(messages.stored_body(messages.parse(body)))
    assert (found.facts.organization_id, found.facts.call_id) == ("org_1", "call_1")
    kept = messages.parse(body).content["call"]["assistantOverrides"]["metadata"]
    assert kept == ours


def test_stored_body_is_bounded_for_any_message():
    deep: dict = {"call": {}}
    for _ in range(200):
        deep = {"call": deep, "customer": {"number": "1" * 900}, "id": "x" * 900}
    metadata = {f"holdfast_{number}": "y" * 900 for number in range(2_000)}
    inner = call(assistantOverrides={"metadata": metadata}, customer=deep, phoneNumber=deep)
    lists = {"cost": ["x" * 900] * 2_000, "customer": [{"number": "1"}] * 2_000}
    body = written(report(call=inner) | HEAVY | lists)
    assert len(messages.stored_body(messages.parse(body))) < 100_000


def test_large_message_is_parsed_as_strictly_as_a_small_one():
    filler = b'"transcript":"' + b"x" * lean.LEAN_FROM_BYTES + b'"'
    for inner in (
        b'"type":"hang","type":"transcript",' + filler,
        b'"type":"hang","artifact":{"a":1,"a":2},' + filler,
        b'"type":"hang","cost":NaN,' + filler,
        filler,
    ):
        with pytest.raises(MalformedWebhook):
            messages.parse(b'{"message":{' + inner + b"}}")


def test_large_request_is_parsed_like_a_small_one():
    asked = {"type": "assistant-request", **PARTIES, "call": call()}
    dialled = {
        "type": "campaign.predial",
        "campaign": {"id": "c", "assistantId": "a"},
        "phoneNumberId": "n",
        "contact": {"id": "p", "number": "+15005550006"},
    }

    def both(message, read):
        large = read(messages.parse(written(message | HEAVY)))
        assert large == read(messages.parse(written(message)))

    both(asked, messages.call_ask_of)
    both(dialled, messages.predial_of)


def test_call_from_the_api_has_the_same_facts():
    shown = call(status="ended", monitor={"controlUrl": "https://x", "listenUrl": "y"}) | HEAVY
    body = json.dumps(shown).encode()
    assert call_facts(lean.read_call(body)) == call_facts(read_object(body))
    assert lean.read_call(body)["monitor"] == {"controlUrl": "https://x"}


def test_numbers_keep_their_text():
    text = b'{"message":{"cost":0.1931000,"timestamp":1777888805000,"status":null,"type":"x"}}'
    assert read_object(lean.write(lean.read_message(text))) == read_object(text)
    assert b"0.1931000" in lean.write(lean.read_message(text))


def test_public_samples_are_parsed_alike():
    files = sorted((SAMPLES / "vapi").glob("*.json"))
    if not files:
        pytest.skip("the public samples are not here")
    for path in files:
        body = path.read_bytes()
        whole = messages.parse(body)
        if whole.type in ("status-update", "end-of-call-report") and "call" in whole.content:
            assert reading(lean.write(lean.read_message(body))) == messages.report_of(whole)
