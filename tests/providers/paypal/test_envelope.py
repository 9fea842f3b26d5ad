from __future__ import annotations

import pytest

from providers.errors import MalformedWebhook
from providers.paypal import envelope


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"id":"WH-1"}',
        b'{"event_type":"A.B"}',
        b'{"id":7,"event_type":"A.B"}',
        b'{"id":"","event_type":"A.B"}',
        b'{"id":"WH 1","event_type":"A.B"}',
        b'{"id":"WH-1\\u0000","event_type":"A.B"}',
        b'{"id":"' + b"W" * 65 + b'","event_type":"A.B"}',
        b'{"id":"WH-1","event_type":"' + b"A" * 65 + b'"}',
        b'{"id":"WH-1","event_type":"A B"}',
        b'{"id":"WH-1","id":"WH-1","event_type":"A.B"}',
        b'{"id":"WH-1","event_type":"A.B","resource":{"id":"1","id":"2"}}',
        b'{"id":"WH-1","event_type":"A.B","resource":{"x":[{"y":1,"y":1}]}}',
        b'{"id":"WH-1","event_type":"A.B","x":NaN}',
        b'{"id":"WH-1","event_type":"A.B","x":' + b"9" * 5000 + b"}",
        b'{"id":"WH-1","event_type":"A.B","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
def test_ambiguous_body_is_malformed(body):
    with pytest.raises(MalformedWebhook):
        envelope.read_envelope(body)


def test_ids_at_the_limit_are_read():
    event = envelope.read_envelope(b'{"id":"' + b"W" * 64 + b'","event_type":"' + b"A" * 64 + b'"}')
    assert (len(event.external_id), len(event.event_type)) == (64, 64)
    assert event.resource == {}
    assert event.occurred_at is None
