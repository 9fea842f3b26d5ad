from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest

from base.settings import Settings
from providers.errors import ForgedWebhook
from providers.vapi.webhook import TOLERANCE_SECONDS, VapiWebhookVerifier
from tests.support.sandbox import RunningSandbox

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
BODY = b'{"message":{"type":"hang"}}'
AT = str(int(NOW.timestamp()))


def verifier(**settings: str) -> VapiWebhookVerifier:
    names = {name.lower(): value for name, value in settings.items()}
    return VapiWebhookVerifier.from_settings(Settings.model_validate(names))


def is_proved(one: VapiWebhookVerifier, body: bytes = BODY, **headers: str) -> bool:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        one.verify(given, body, now=NOW)
    except ForgedWebhook:
        return False
    return True


def signature(
    secret: str = "key", body: bytes = BODY, at: str = AT, algorithm: str = "sha256"
) -> str:
    return hmac.new(secret.encode(), at.encode() + b"." + body, algorithm).hexdigest()


@pytest.mark.parametrize("settings", [{}, {"VAPI_SERVER_SECRET": " , "}])
def test_every_message_is_forged_when_no_credential_is_set(settings):
    one = verifier(**settings)
    for headers in (
        {},
        {"authorization": "Bearer "},
        {"authorization": "Bearer ,"},
        {"x_vapi_secret": ""},
        {"x_vapi_secret": ","},
        {"x_signature": signature(""), "x_timestamp": AT},
    ):
        assert not is_proved(one, **headers)


def test_secret_is_accepted_as_bearer_and_in_vapis_header():
    one = verifier(VAPI_SERVER_SECRET="s3cret")
    assert is_proved(one, authorization="Bearer s3cret")
    assert is_proved(one, authorization="bearer  s3cret ")
    assert is_proved(one, x_vapi_secret="s3cret")
    # And beside another credential for the server
    assert is_proved(one, x_vapi_secret="s3cret", authorization="Bearer somebody's")
    assert is_proved(one, x_vapi_secret="somebody's", authorization="Bearer s3cret")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "s3cret"},
        {"authorization": "Basic s3cret"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer s3cre"},
        {"authorization": "Bearer s3crett"},
        {"authorization": "Bearer S3CRET"},
        {"authorization": "Bearer s3cret, other"},
        {"x_vapi_secret": "wrong"},
        {"x_vapi_secret": "Bearer s3cret"},
        {"x_secret": "s3cret"},
        {"x_vapi_signature": "s3cret"},
    ],
)
def test_missing_or_wrong_secret_is_forged(headers):
    assert not is_proved(verifier(VAPI_SERVER_SECRET="s3cret"), **headers)


def test_both_secrets_are_accepted_during_a_rotation():
    one = verifier(VAPI_SERVER_SECRET="old, new")
    assert is_proved(one, authorization="Bearer old")
    assert is_proved(one, x_vapi_secret="new")
    for wrong in ("old, new", "old,new", "", ",", "third"):
        assert not is_proved(one, x_vapi_secret=wrong)


@pytest.mark.parametrize("name", ["authorization", "x_vapi_secret", "x_signature", "x_timestamp"])
@pytest.mark.parametrize("text", ["Bearer ß\xff", "\u20ac", "\ud800", "\x00", "\uff11\uff17"])
def test_header_beyond_ascii_never_raises(name, text):
    good = {
        "authorization": "Bearer s3cret",
        "x_signature": signature(),
        "x_timestamp": AT,
    }
    one = verifier(VAPI_SERVER_SECRET="s3cret", VAPI_HMAC_SECRET="key")
    assert is_proved(one, **good)
    # A second credential that is unreadable does not invalidate the first
    assert is_proved(one, **{**good, name: text}) == (name == "x_vapi_secret")


def test_secret_beyond_ascii_is_compared_byte_for_byte():
    one = verifier(VAPI_SERVER_SECRET="grüße")
    assert is_proved(one, x_vapi_secret="grüße".encode().decode("latin-1"))
    assert not is_proved(one, x_vapi_secret="gr??e")


@pytest.mark.parametrize("at", [AT, f"{AT}000", f"{AT}123"])
def test_signature_is_accepted_in_sha256_only(at):
    one = verifier(VAPI_HMAC_SECRET="key")
    for algorithm in ("sha256", "sha512", "sha1", "md5"):
        made, accepted = signature(at=at, algorithm=algorithm), algorithm == "sha256"
        # With a time in seconds or in milliseconds
        assert is_proved(one, x_signature=made, x_timestamp=at) is accepted
        prefixed = f"{algorithm}={made.upper()}"
        assert is_proved(one, x_signature=prefixed, x_timestamp=at) is accepted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_signature": signature()},
        {"x_timestamp": AT},
        {"x_signature": "", "x_timestamp": AT},
        {"x_signature": signature(), "x_timestamp": ""},
        {"x_signature": signature()[:-1], "x_timestamp": AT},
        {"x_signature": signature() + "0", "x_timestamp": AT},
        {"x_signature": signature("other"), "x_timestamp": AT},
        {"x_signature": signature(""), "x_timestamp": AT},
        {"x_signature": signature(body=BODY + b" "), "x_timestamp": AT},
        {"x_signature": signature(at=f"{AT}0"), "x_timestamp": AT},
        {"x_signature": hmac.new(b"key", BODY, "sha256").hexdigest(), "x_timestamp": AT},
        {"x_signature": hashlib.sha256(BODY).hexdigest(), "x_timestamp": AT},
        {"x_vapi_signature": signature(), "x_timestamp": AT},
    ],
)
def test_missing_or_wrong_signature_is_forged(headers):
    assert not is_proved(verifier(VAPI_HMAC_SECRET="key"), **headers)


@pytest.mark.parametrize(
    "at", ["soon", "-1", "1e9", "1777896000.0", "0", " ", "9" * 16, "1_777_896_000", "²"]
)
def test_timestamp_far_from_ours_or_invalid_is_forged(at):
    made = signature(at=at.strip()) if at.isascii() else signature()
    assert not is_proved(verifier(VAPI_HMAC_SECRET="key"), x_signature=made, x_timestamp=at)


@pytest.mark.parametrize("unit", [1, 1000])
@pytest.mark.parametrize("sign", [-1, 1])
def test_timestamp_is_accepted_up_to_its_exact_limit(unit, sign):
    one = verifier(VAPI_HMAC_SECRET="key")
    for seconds, taken in ((TOLERANCE_SECONDS, True), (TOLERANCE_SECONDS + 1, False)):
        at = str(int((NOW + timedelta(seconds=sign * seconds)).timestamp()) * unit)
        assert is_proved(one, x_signature=signature(at=at), x_timestamp=at) is taken


def test_every_configured_credential_is_required():
    # Given both credentials, Then neither is enough alone
    one = verifier(VAPI_HMAC_SECRET="key", VAPI_SERVER_SECRET="s3cret")
    signed = {"x_signature": signature(), "x_timestamp": AT}
    assert not is_proved(one, authorization="Bearer s3cret")
    assert not is_proved(one, **signed)
    assert not is_proved(one, body=BODY + b" ", authorization="Bearer s3cret", **signed)
    assert is_proved(one, authorization="Bearer s3cret", **signed)


@pytest.mark.parametrize(
    ("mode", "unit"),
    [("bearer", "ms"), ("x-vapi-secret", "ms"), ("hmac", "ms"), ("hmac", "seconds")],
)
def test_sandbox_messages_verify_and_its_forgeries_do_not(
    sandbox: RunningSandbox, listener, mode, unit
):
    # Given a sandbox Vapi that uses one of its authentication modes
    sandbox.control(
        "POST",
        "/vapi/authentication",
        {"mode": mode, "timestamp_unit": unit},
    )
    known = sandbox.info["vapi"]
    one = verifier(
        **(
            {"VAPI_HMAC_SECRET": known["hmac_secret"]}
            if mode == "hmac"
            else {"VAPI_SERVER_SECRET": known["server_secret"]}
        )
    )
    forgeries = ["credential", "body", "stale"] if mode == "hmac" else ["credential"]
    # When it sends a genuine message and each forgery
    for forge in (None, *forgeries):
        sandbox.control("POST", "/vapi/messages", {"type": "hang", "forge": forge})
        request = listener.received.pop()
        headers = {name.lower(): value for name, value in request.headers.items()}
        # Then only the genuine message is accepted
        if forge is None:
            one.verify(headers, request.body, now=datetime.now(UTC))
        else:
            with pytest.raises(ForgedWebhook):
                one.verify(headers, request.body, now=datetime.now(UTC))
