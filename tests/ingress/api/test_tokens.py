"""API tokens: their key, algorithm, audience and lifetime, and key rotation."""

from __future__ import annotations

import base64
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from base.settings import Settings
from ingress.api.tokens import BadToken, Keys, NotConfigured, Tokens, read_keys


@pytest.fixture
def tokens(signer):
    return Tokens(Settings(api_jwks_file=signer.path, api_issuer=""))


def verify(tokens: Tokens, token: str):
    return tokens.verify(f"Bearer {token}")


def test_genuine_token_names_its_organization_and_scopes(tokens, signer):
    bearer = verify(tokens, signer.token("org_one", "calls:read", "wallet:read"))
    assert (bearer.organization_id, bearer.scopes) == ("org_one", {"calls:read", "wallet:read"})


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - 60},
        {"exp": int(time.time()) + 100_000},
        {"exp": None},
        {"aud": "others"},
        {"aud": None},
        {"org": None},
        {"org": 7},
        {"org": ""},
        {"org": "x" * 65},
        {"scope": ["calls:read"]},
        {"nbf": int(time.time()) + 3_600},
        {"exp": str(int(time.time()) + 60)},
        {"exp": True},
        {"exp": 10**400},
        {"exp": 1e308 * 10},
        {"org": "a\0b"},
    ],
)
def test_token_that_is_not_for_us_now_is_refused(tokens, signer, claims):
    given = {"org": "org_one"} | claims
    token = signer.token(given.pop("org"), **given)
    with pytest.raises(BadToken):
        verify(tokens, token)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic abc",
        "Bearer a.b.c",
        "Bearer " + "x" * 9000,
        "Bearer \xe9\xff.e30.x",
        # A header that is nested as deeply as the limit on a token's length allows.
        f"Bearer {base64.urlsafe_b64encode(b'[' * 6_000).decode()}.e30.x",
    ],
)
def test_text_that_is_no_token_is_refused(tokens, authorization):
    with pytest.raises(BadToken):
        tokens.verify(authorization)


def token_of_length(signer, length: int) -> str:
    """Build a genuine token of exactly `length` characters."""
    claims = {"org": "org_one", "aud": "holdfast", "exp": int(time.time()) + 60}
    for filler in ("", "x", "xx", "xxx"):
        head = {"kid": "one", "filler": filler}

        def token(padding: int, head=head) -> str:
            padded = {**claims, "padding": "x" * padding}
            return jwt.encode(padded, signer.keys["one"], algorithm="HS256", headers=head)

        # Three bytes become four characters. Some lengths need a filler in the header
        about = (length - len(token(0))) * 3 // 4
        for padding in range(about - 2, about + 3):
            if len(token(padding)) == length:
                return token(padding)
    raise AssertionError(f"no token has {length} characters")


def test_genuine_token_is_refused_past_8192_characters(tokens, signer):
    longest, longer = token_of_length(signer, 8_192), token_of_length(signer, 8_193)
    assert verify(tokens, longest).organization_id == "org_one"
    with pytest.raises(BadToken, match="too long"):
        verify(tokens, longer)


def test_another_algorithm_than_the_keys_own_is_refused(tokens, signer):
    claims = {"org": "o", "aud": "holdfast", "exp": int(time.time()) + 60}
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"kid": "one"})
    other = jwt.encode(claims, signer.keys["one"] * 2, algorithm="HS512", headers={"kid": "one"})
    nameless = jwt.encode(claims, signer.keys["one"], algorithm="HS256")
    for token in (unsigned, other, nameless):
        with pytest.raises(BadToken):
            verify(tokens, token)


def test_public_key_cannot_be_used_as_a_shared_key(tmp_path):
    # Given a key file that contains a public RSA key
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    listed = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**listed, "kid": "rsa", "alg": "RS256"}]}))
    tokens = Tokens(Settings(api_jwks_file=path))
    claims = {"org": "o", "aud": "holdfast", "exp": int(time.time()) + 60}
    # When an attacker signs with the public key as a shared secret, Then the token is refused
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa"}').rstrip(b"=").decode()
    genuine = jwt.encode(claims, private, algorithm="RS256", headers={"kid": "rsa"})
    with pytest.raises(BadToken):
        verify(tokens, f"{header}.{genuine.split('.', 1)[1]}")
    assert verify(tokens, genuine).organization_id == "o"


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
    ],
)
def test_keys_of_other_types_verify_too(tmp_path, algorithm, private):
    maker = jwt.algorithms.get_default_algorithms()[algorithm]
    listed = json.loads(maker.to_jwk(private.public_key()))
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**listed, "kid": "k", "alg": algorithm}]}))
    claims = {"org": "o", "aud": "holdfast", "exp": int(time.time()) + 60}
    token = jwt.encode(claims, private, algorithm=algorithm, headers={"kid": "k"})
    assert verify(Tokens(Settings(api_jwks_file=path)), token).organization_id == "o"


def test_issuer_is_required_when_one_is_set(signer):
    tokens = Tokens(Settings(api_jwks_file=signer.path, api_issuer="backend"))
    with pytest.raises(BadToken):
        verify(tokens, signer.token("o"))
    assert verify(tokens, signer.token("o", iss="backend")).organization_id == "o"


def test_keys_rotate_and_a_file_that_breaks_leaves_the_last_ones(signer):
    now = [0.0]
    keys = Keys(signer.path, clock=lambda: now[0])
    assert keys.key("one") and keys.key("two") is None
    # When a second key is added, Then both keys are known after the next reload
    signer.add("two")
    now[0] += 6
    assert keys.key("one") and keys.key("two")
    signer.remove("one")
    now[0] += 6
    assert keys.key("one") is None and keys.key("two")
    signer.path.write_text("{")
    now[0] += 6
    assert keys.key("two")
    signer.path.unlink()
    now[0] += 6
    assert keys.key("two")


def test_every_token_is_refused_without_a_key_file(signer):
    with pytest.raises(NotConfigured):
        Tokens(Settings()).verify(f"Bearer {signer.token('o')}")


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"keys":[{}]}',
        '{"keys":[{"kid":"a","kty":"oct","k":"AAAA","alg":"none"}]}',
        '{"keys":[{"kid":"a","kty":"oct","k":"AAAA","alg":"HS256"}]}',
        '{"keys":[{"kid":"a","kty":"RSA","alg":"RS256"}]}',
        "[]",
        '{"keys":[7]}',
        '{"keys":[{"kid":"a","kty":"EC","crv":"P-384","x":"AA","y":"AA","alg":"ES256"}]}',
        "[" * 100_000,
    ],
)
def test_unusable_key_is_not_read(content):
    with pytest.raises(ValueError):
        read_keys(content)


def rsa_key(bits: int) -> dict[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits).public_key()
    return {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key)), "kid": "a", "alg": "RS256"}


def test_rsa_key_that_is_too_short_is_not_read():
    with pytest.raises(ValueError, match="2048 bits"):
        read_keys(json.dumps({"keys": [rsa_key(1_024)]}))
    assert list(read_keys(json.dumps({"keys": [rsa_key(2_048)]}))) == ["a"]


def test_keys_with_one_id_are_both_not_read(signer):
    (one,) = json.loads(signer.path.read_text())["keys"]
    with pytest.raises(ValueError, match="two keys"):
        read_keys(json.dumps({"keys": [one, one]}))


def test_invalid_key_file_leaves_the_last_keys(signer):
    now = [0.0]
    keys = Keys(signer.path, clock=lambda: now[0])
    assert keys.key("one")
    for content in ("[]", '{"keys":[7]}', "[" * 100_000):
        signer.path.write_text(content)
        now[0] += 6
        assert keys.key("one")
