"""Settings: read once from environment variables, checked, and passed to the code.

A one-line error names each missing or wrong setting. No secret is ever shown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from base.addresses import check_redis_address

#: Source: PayPal's notifications_webhooks_v1 OpenAPI file, field webhook_id.
_WEBHOOK_ID = re.compile(r"[A-Za-z0-9]{1,50}", re.ASCII)

#: Lowest rate that a setting accepts, per second. Below it, a call would be delayed for minutes.
PER_SECOND_MIN = 0.01


class SettingsError(Exception):
    """A setting is missing or wrong. The message is one line that names it."""


class Settings(BaseSettings):
    """All settings. A field's environment variable is its name in upper case."""

    # An empty variable counts as not set, because deployment files often pass on unset variables
    # as empty ones.
    model_config = SettingsConfigDict(
        extra="ignore", hide_input_in_errors=True, env_ignore_empty=True
    )

    # These contain passwords. They must not show in a repr.
    database_url: str = Field(
        "",
        repr=False,
        description="PostgreSQL address for all serving processes, as holdfast_app",
    )
    database_owner_url: str = Field(
        "",
        repr=False,
        description="PostgreSQL address of a superuser or owner, for migrations and rebuilds only",
    )
    redis_url: str = Field(
        "",
        repr=False,
        description="Redis or Valkey address; Redis carries the notifications of jobs",
    )

    host: str = Field("127.0.0.1", description="Address on which the ingress listens")
    port: int = Field(
        8080, ge=0, le=65535, description="Port on which the ingress listens; 0 takes any free port"
    )
    public_url: str = Field(
        "", description="Address at which providers reach the ingress; Twilio signs it"
    )
    holdfast_state: Path = Field(Path("var"), description="Folder for the data of embedded servers")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe level that is logged"
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="Write log lines as JSON, or as text for a terminal"
    )

    paypal_client_id: str = Field("", description="Client ID of our REST app at PayPal")
    paypal_client_secret: SecretStr = Field(
        SecretStr(""), description="Secret of our REST app at PayPal"
    )
    paypal_webhook_id: str = Field(
        "", description="ID of our webhook at PayPal, which its signatures include"
    )
    paypal_environment: Literal["live", "sandbox"] = Field(
        "live", description="PayPal system that is called and whose webhooks are accepted"
    )
    paypal_base_url: str = Field("", description="Address of PayPal's API, if not PayPal's own")
    paypal_verification: Literal["offline", "api"] = Field(
        "offline",
        description="Verify webhooks with PayPal's certificate, or by asking PayPal's API",
    )
    paypal_ca_file: Path | None = Field(
        None, description="PEM file of the issuers that PayPal's certificate must chain to"
    )

    api_jwks_file: Path | None = Field(
        None,
        description="JWKS file that verifies the API's tokens; without it the API is closed",
    )
    api_audience: str = Field(
        "holdfast", min_length=1, description="Audience (aud) that the API's tokens must name"
    )
    api_issuer: str = Field(
        "", description="Issuer (iss) that the API's tokens must name; empty accepts any issuer"
    )

    ledger_anchor_key: SecretStr = Field(
        SecretStr(""), description="Key that signs the chain heads written by verify anchor"
    )

    jobs_kept_days: int = Field(
        30, ge=1, le=3_650, description="Days for which a finished job and its attempts are kept"
    )
    payloads_kept_days: int = Field(
        90, ge=4, le=3_650, description="Days for which the body of a handled event is kept"
    )

    subscription_grace_seconds: int = Field(
        0,
        ge=0,
        le=7_776_000,
        description="Seconds for which a subscription with a failed payment counts as active",
    )

    twilio_account_sid: str = Field("", description="SID of our parent account at Twilio")
    twilio_auth_token: SecretStr = Field(
        SecretStr(""),
        description="Auth token of the parent account; two, separated by a comma, while it rotates",
    )
    twilio_base_url: str = Field("", description="Address of Twilio's API, if not Twilio's own")

    vapi_api_key: SecretStr = Field(SecretStr(""), description="Private key for Vapi's API")
    vapi_base_url: str = Field("", description="Address of Vapi's API, if not Vapi's own")
    vapi_server_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret in Vapi's messages; two, separated by a comma, while it rotates",
    )
    vapi_hmac_secret: SecretStr = Field(
        SecretStr(""),
        description="Key of the HMAC of Vapi's messages; if set, every message must be signed",
    )

    # Twilio limits concurrent requests (error 20429) and messages (2000 a second, error 63017). The
    # limits depend on the account. Safety calls have no limit here.
    twilio_money_per_second: float = Field(
        20,
        ge=PER_SECOND_MIN,
        le=1000,
        description="Most requests about money per second to one Twilio account",
    )
    twilio_bulk_per_second: float = Field(
        50,
        ge=PER_SECOND_MIN,
        le=1000,
        description="Most other requests per second to one Twilio account",
    )

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, value: str) -> str:
        if value:
            check_redis_address(value)
        return value

    @field_validator("public_url", "paypal_base_url", "twilio_base_url", "vapi_base_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        if value and not value.startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://")
        return value.rstrip("/")

    @field_validator("paypal_webhook_id")
    @classmethod
    def _check_webhook_id(cls, value: str) -> str:
        # PayPal's simulator signs events with the literal id WEBHOOK_ID for every developer. A
        # webhook endpoint with that id would accept forged events.
        if value.upper() == "WEBHOOK_ID":
            raise ValueError(
                "is the ID of PayPal's simulator, which signs events for every developer"
            )
        if value and not _WEBHOOK_ID.fullmatch(value):
            raise ValueError("must be 1 to 50 letters and digits, as the PayPal dashboard shows it")
        return value


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises: SettingsError, which names every wrong variable in one line.
    """
    try:
        return Settings()  # type: ignore[call-arg]  # every field has a default
    except ValidationError as error:
        wrong = "; ".join(
            f"{str(part['loc'][0]).upper()}: {part['msg'].removeprefix('Value error, ')}"
            for part in error.errors()
        )
        raise SettingsError(f"wrong setting: {wrong}") from None


def require(settings: Settings, *names: str) -> None:
    """Check that the named settings are given.

    Raises: SettingsError, which names every missing one in one line.
    """
    missing = []
    for name in names:
        value = getattr(settings, name)
        text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not text:
            missing.append(name.upper())
    if missing:
        raise SettingsError(f"missing setting: {', '.join(missing)}")
