"""Makes API tokens with a local key. In production the backend has the keys."""

from __future__ import annotations

import base64
import json
import os
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import jwt
import typer

from base.settings import Settings, load_settings
from cli.commands.output import print_result
from cli.errors import Failure, clear_errors
from cli.options import Json
from ingress.api.tokens import LIFE_SECONDS_MAX
from local.stack import state_folder

#: Scopes of a token if the command names none.
SCOPES = ("calls:write", "calls:read", "wallet:read")
_KEY_BYTES = 32
_HOURS_MAX = LIFE_SECONDS_MAX // 3_600


def token(
    organization: Annotated[str, typer.Option("--org", help="Organization it acts for.")],
    scope: Annotated[list[str] | None, typer.Option(help="Scope it grants; repeatable.")] = None,
    hours: Annotated[int, typer.Option(min=1, max=_HOURS_MAX, help="Hours until it expires.")] = 1,
    as_json: Json = False,
) -> None:
    """Print a token for the API, signed with this machine's own key (API_JWKS_FILE)."""
    with clear_errors():
        settings = load_settings()
        path = settings.api_jwks_file or keys_file(settings)
        key = _signing_key(path)
        expires = int(time.time()) + hours * 3_600
        granted = " ".join(scope or SCOPES)
        claims = {
            "org": organization,
            "scope": granted,
            "aud": settings.api_audience,
            "exp": expires,
            **({"iss": settings.api_issuer} if settings.api_issuer else {}),
        }
    token_text = jwt.encode(
        claims, _decode_base64url(key["k"]), algorithm="HS256", headers={"kid": key["kid"]}
    )
    details = {
        "token": token_text,
        "organization_id": organization,
        "scopes": granted.split(),
        "expires_at": datetime.fromtimestamp(expires, UTC),
    }
    print_result(token_text, details, as_json)


def keys_file(settings: Settings) -> Path:
    """Return the path of this machine's own key; create the key if there is none."""
    path = state_folder(settings) / "api-keys.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        key = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).rstrip(b"=").decode()
        content = json.dumps({"keys": [{"kty": "oct", "kid": "laptop", "alg": "HS256", "k": key}]})
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(content)
    return path


def _signing_key(path: Path) -> dict[str, Any]:
    try:
        keys = json.loads(path.read_text())["keys"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Failure(f"{path} is not a JWKS key file") from None
    hs256_keys = [one for one in keys if one.get("kty") == "oct" and one.get("alg") == "HS256"]
    if not hs256_keys:
        raise Failure(f"{path} has no HS256 key, so no token can be signed with it here")
    key: dict[str, Any] = hs256_keys[-1]
    return key


def _decode_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
