from __future__ import annotations

import base64
import hashlib
import hmac
import json
from urllib.parse import urlencode, urlsplit

import pytest

from providers.errors import ForgedWebhook, MalformedWebhook
from providers.twilio.webhook import account_sid_of, external_id_of, verify
from tests.providers.support import SAMPLES, SID, sample

PUBLIC = "https://hooks.example.test"
PATH = "/twilio/voice/status"
TOKEN = "a-token"
NAMES = sorted(path.name for path in (SAMPLES / "twilio").glob("webhook_*.json"))


def sign(url: str, pairs: list[tuple[str, str]] = [], token: str = TOKEN) -> str:  # noqa: B006
    """Compute Twilio's signature as documented, for names that are not repeated."""
    text = url + "".join(name + value for name, value in sorted(pairs))
    digest = hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def judge(
    body: bytes, signature: str | None, path: str = PATH, public: str = PUBLIC, token: str = TOKEN
) -> dict[str, list[str]]:
    return verify(
        public_url=public, path_and_query=path, body=body, signature=signature, token=token
    )


@pytest.mark.parametrize("name", NAMES or ["absent"])
def test_every_sample_verifies_and_no_altered_one_does(name):
    # Given a callback with a signature that Twilio documented or made
    meta = json.loads(sample(f"twilio/{name}").read_text())
    parts = urlsplit(meta["url"])
    public, path = f"{parts.scheme}://{parts.netloc}", parts.path
    path += f"?{parts.query}" if parts.query else ""
    body = (meta.get("raw_body") or urlencode(meta.get("params", {}))).encode()
    signature, token = meta["x_twilio_signature_sha1"], meta["test_auth_token"]
    # Then it is valid, with every parameter
    params = judge(body, signature, path, public, token)
    pairs = meta.get("params_in_order") or list(meta["params"].items())
    assert params == {key: [value] for key, value in pairs}
    # And it is not valid with any change
    for altered in (
        (body + b"&X=", signature, path, public, token),
        (body.replace(b"Sid=", b"Sid=X", 1), signature, path, public, token),
        (body, signature, f"{path}x", public, token),
        (body, signature, path, public.replace("https", "http"), token),
        (body, signature, path, public, f"{token}x"),
        (body, signature[:-1], path, public, token),
        (body, f"{signature} ", path, public, token),
        (body, "", path, public, token),
        (body, None, path, public, token),
        (body, signature, path, public, ""),
    ):
        with pytest.raises(ForgedWebhook):
            judge(*altered)


def test_callback_is_refused_when_no_token_is_known():
    # Given a signature with the empty key, which an attacker can make
    body = b"CallSid=CA1"
    signature = sign(PUBLIC + PATH, [("CallSid", "CA1")], token="")
    with pytest.raises(ForgedWebhook, match="missing"):
        judge(body, signature, token="")


def test_blank_values_are_signed_and_kept():
    body = b"FromCity=&ToZip=&CallSid=CA1"
    signature = sign(PUBLIC + PATH, [("FromCity", ""), ("ToZip", ""), ("CallSid", "CA1")])
    assert judge(body, signature)["FromCity"] == [""]


def test_every_value_of_a_repeated_name_is_signed():
    body = b"A=1&A=2"
    signature = sign(PUBLIC + PATH, [("A", "1"), ("A", "2")])
    assert judge(body, signature) == {"A": ["1", "2"]}
    with pytest.raises(ForgedWebhook):
        judge(b"A=1&A=2&A=3", signature)


def test_signature_covers_the_query_string():
    path = f"{PATH}?call=1"
    signature = sign(PUBLIC + path, [("A", "1")])
    judge(b"A=1", signature, path)
    with pytest.raises(ForgedWebhook):
        judge(b"A=1", signature, f"{PATH}?call=2")


def test_json_body_must_match_its_signed_hash():
    body = b'{"a": 1}'
    path = f"{PATH}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    signature = sign(PUBLIC + path)
    assert judge(body, signature, path) == {}
    for other in (b'{"a": 2}', b"", b"\xff", b"A=1"):
        with pytest.raises(ForgedWebhook):
            judge(other, signature, path)


def test_json_body_without_a_signed_hash_is_refused():
    # Given a signature over an address alone, as of a GET callback
    signature = sign(PUBLIC + PATH)
    # When a body is sent with it, Then it is a forgery
    for body in (b'{"a": 1}', b"A=1", b"A="):
        with pytest.raises(ForgedWebhook):
            judge(body, signature)


@pytest.mark.parametrize("path", ["", "x", "@evil.example/", ":80/x", ".evil.example/"])
def test_path_that_would_change_the_host_is_a_forgery(path):
    with pytest.raises(ForgedWebhook):
        judge(b"A=1", sign(PUBLIC + path, [("A", "1")]), path)


@pytest.mark.parametrize(
    "body", [b"\xff\xfe", b"&".join(b"a%d=1" % number for number in range(501))]
)
def test_body_that_cannot_be_read_is_a_forgery(body):
    with pytest.raises(ForgedWebhook):
        judge(body, "x")


def test_account_is_read_before_verification():
    assert account_sid_of(f"A=1&AccountSid={SID}".encode()) == SID
    assert account_sid_of(f"AccountSid={SID}&AccountSid={SID}".encode()) == SID


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"AccountSid=",
        b"AccountSid=AC1",
        b"AccountSid=../x",
        f"AccountSid={SID}%0A".encode(),
        f"AccountSid={SID.upper()}1".encode(),
        f"AccountSid={SID}&AccountSid={SID[:-1]}2".encode(),
    ],
)
def test_invalid_account_is_malformed(body):
    with pytest.raises(MalformedWebhook):
        account_sid_of(body)


@pytest.mark.parametrize("name", [one for one in NAMES if "voice" in one] or ["absent"])
def test_call_sample_is_identified_by_call_and_status(name):
    meta = json.loads(sample(f"twilio/{name}").read_text())
    params = dict(meta["params_in_order"])
    named = external_id_of({key: [value] for key, value in params.items()})
    assert named == f"{params['CallSid']}:{params['CallStatus']}:{params['SequenceNumber']}"
    assert account_sid_of(meta["raw_body"].encode()) == params["AccountSid"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"MessageSid": "SM1", "MessageStatus": "sent", "SmsStatus": "x"}, "SM1:sent"),
        ({"MessageSid": "SM1", "SmsStatus": "received"}, "SM1:received"),
        ({"CallSid": "CA1", "CallStatus": "in-progress"}, "CA1:in-progress"),
        ({"CallSid": "CA1", "CallStatus": "completed", "SequenceNumber": "3"}, "CA1:completed:3"),
    ],
)
def test_callback_is_identified_by_its_object_and_status(params, expected):
    assert external_id_of({key: [value] for key, value in params.items()}) == expected


def test_longest_event_id_has_64_characters():
    sid = "CA" + "0" * 32
    params = {"CallSid": [sid], "CallStatus": ["a" * 20], "SequenceNumber": ["123456"]}
    assert len(external_id_of(params)) <= 64


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"MessageSid": ["SM1"]},
        {"MessageSid": ["SM1", "SM2"], "MessageStatus": ["sent"]},
        {"MessageSid": ["SM1"], "MessageStatus": ["sent", "failed"]},
        {"MessageSid": ["sm1"], "MessageStatus": ["sent"]},
        {"MessageSid": ["SM1\n"], "MessageStatus": ["sent"]},
        {"MessageSid": ["SM1"], "MessageStatus": [""]},
        {"MessageSid": ["SM" + "1" * 33], "MessageStatus": ["sent"]},
        {"CallSid": ["CA1"]},
        {"CallSid": ["CA1"], "CallStatus": ["completed"], "SequenceNumber": ["-1"]},
    ],
)
def test_callback_without_an_object_is_malformed(params):
    with pytest.raises(MalformedWebhook):
        external_id_of(params)
