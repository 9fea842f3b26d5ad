"""holdfast token: a local signing key, and tokens that the API accepts."""

from __future__ import annotations

import json
import stat

import pytest

from base.settings import load_settings
from ingress.api.tokens import BadToken, Tokens


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("API_JWKS_FILE", raising=False)
    return tmp_path / "state"


def tokens(path, monkeypatch) -> Tokens:
    monkeypatch.setenv("API_JWKS_FILE", str(path))
    return Tokens(load_settings())


def test_key_is_created_once_and_readable_by_its_owner_only(run, state):
    keys = state / "api-keys.json"
    assert run("token", "--org", "org_one")[0] == 0
    first = keys.read_bytes()
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert run("token", "--org", "org_two")[0] == 0
    assert keys.read_bytes() == first


def test_token_is_accepted_for_its_organization_and_scopes(run, state, monkeypatch):
    _, everything, _ = run("token", "--org", "org_one")
    _, little, _ = run("token", "--org", "org_one", "--scope", "calls:read", "--hours", "24")
    _, two, _ = run("token", "--org", "org_one", "--scope", "calls:read wallet:read")
    verifier = tokens(state / "api-keys.json", monkeypatch)
    seen = [verifier.verify(f"Bearer {one.strip()}") for one in (everything, little, two)]
    assert {one.organization_id for one in seen} == {"org_one"}
    assert [one.scopes for one in seen] == [
        {"calls:write", "calls:read", "wallet:read"},
        {"calls:read"},
        {"calls:read", "wallet:read"},
    ]


def test_token_follows_the_settings_audience_and_issuer(run, state, monkeypatch):
    monkeypatch.setenv("API_AUDIENCE", "others")
    monkeypatch.setenv("API_ISSUER", "laptop")
    _, token, _ = run("token", "--org", "org_one")
    verifier = tokens(state / "api-keys.json", monkeypatch)
    assert verifier.verify(f"Bearer {token.strip()}").organization_id == "org_one"
    monkeypatch.setenv("API_ISSUER", "somebody")
    with pytest.raises(BadToken):
        Tokens(load_settings()).verify(f"Bearer {token.strip()}")


@pytest.mark.parametrize("content", [None, "{", "[]", json.dumps({"keys": []})])
def test_token_is_not_signed_when_the_named_file_has_no_shared_key(
    run, state, tmp_path, monkeypatch, content
):
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("API_JWKS_FILE", str(path))
    status, out, error = run("token", "--org", "org_one")
    assert (status, out) == (1, "")
    assert str(path) in error.replace("\n", "")


@pytest.mark.parametrize("hours", ["0", "25"])
def test_token_lives_for_a_day_at_most(run, state, hours):
    assert run("token", "--org", "org_one", "--hours", hours)[0] != 0
