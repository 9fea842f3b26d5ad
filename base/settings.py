"""Settings: read once from environment variables, checked, and passed to the code.

A one-line error names each missing or wrong setting. No secret is ever shown.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from base.addresses import check_redis_address

#: Source: PayPal's notifications_webhooks_v1 OpenAPI file, field webhook_id.
_WEBHOOK_ID = re.compile(r"[A-Za-z0-9]{1,50}", re.ASCII)

#: Shortest time that a setting accepts, in seconds. Below it, waits would become busy loops.
SECONDS_MIN = 0.1
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
        "", repr=False, description="PostgreSQL as the role holdfast_app, which serves"
    )
    database_owner_url: str = Field(
        "", repr=False, description="PostgreSQL as a superuser or owner: migrate and rebuild only"
    )
    redis_url: str = Field("", repr=False, description="Redis or Valkey that carries the jobs")

    host: str = Field("127.0.0.1", description="Address the ingress listens on")
    port: int = Field(8080, ge=0, le=65535, description="Port the ingress listens on")
    public_url: str = Field(
        "", description="https address providers reach us at; Twilio signs it (PUBLIC_URL)"
    )
    holdfast_state: Path = Field(Path("var"), description="Folder for embedded servers' data")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Log level")
    log_format: Literal["json", "console"] = Field(
        "json", description="Log lines as JSON, or coloured for a terminal"
    )
    webhook_body_bytes_max: int = Field(
        1_048_576, ge=1024, le=16_777_216, description="Largest webhook body accepted, in bytes"
    )

    paypal_client_id: str = Field("", description="REST app's client id")
    paypal_client_secret: SecretStr = Field(SecretStr(""), description="REST app's secret")
    paypal_webhook_id: str = Field("", description="Id of our webhook at PayPal")
    paypal_environment: Literal["live", "sandbox"] = Field("live", description="Which PayPal")
    paypal_base_url: str = Field("", description="Another address of PayPal's API (a stand-in)")
    paypal_verification: Literal["offline", "api"] = Field(
        "offline", description="Check signatures by certificate, or ask PayPal's API"
    )
    paypal_ca_file: Path | None = Field(
        None, description="PEM of the issuers that PayPal's certificate must chain to"
    )
    paypal_certificate_name: str = Field(
        "", description="Name the certificate must bear, if not PayPal's own (a stand-in)"
    )

    api_jwks_file: Path | None = Field(
        None, description="JWKS of the keys that prove the API's tokens; without it, it is closed"
    )
    api_audience: str = Field("holdfast", min_length=1, description="Whom a token is for")
    api_issuer: str = Field("", description="Who a token must be by, if anybody")

    ledger_anchor_key: SecretStr = Field(
        SecretStr(""), description="Signs the file of all chains' heads (verify anchor)"
    )

    jobs_kept_days: int = Field(
        30, ge=1, le=3_650, description="How long a job that is over is kept, with its attempts"
    )
    payloads_kept_days: int = Field(
        90, ge=4, le=3_650, description="How long a handled event's body is kept"
    )

    subscription_grace_seconds: int = Field(
        0, ge=0, le=7_776_000, description="How long a failed payment leaves an organization open"
    )

    twilio_account_sid: str = Field("", description="The parent account")
    twilio_auth_token: SecretStr = Field(
        SecretStr(""), description="The parent account's token; two by a comma to rotate"
    )
    twilio_base_url: str = Field("", description="Another address of Twilio's API (a stand-in)")
    twilio_unsure_seconds: float = Field(
        120, ge=SECONDS_MIN, le=3600, description="How long a lost request may still land at Twilio"
    )
    twilio_recheck_seconds: float = Field(
        10, ge=SECONDS_MIN, le=600, description="How often an unsure subaccount is read again"
    )

    vapi_api_key: SecretStr = Field(SecretStr(""), description="The private key of Vapi's API")
    vapi_base_url: str = Field("", description="Another address of Vapi's API (a stand-in)")
    vapi_server_secret: SecretStr = Field(
        SecretStr(""), description="What Vapi's messages bear as proof; two by a comma to rotate"
    )
    vapi_hmac_secret: SecretStr = Field(
        SecretStr(""), description="Signs Vapi's messages; where it is set, it is demanded"
    )
    vapi_hmac_algorithm: Literal["sha256", "sha512", "sha1"] = Field(
        "sha256", description="How they are signed"
    )
    vapi_hmac_header: str = Field("x-signature", description="Header of their signature")
    vapi_hmac_timestamp_header: str = Field("x-timestamp", description="Header of their time")
    vapi_body_bytes_max: int = Field(
        16_777_216,
        ge=1024,
        le=67_108_864,
        description="Largest message from Vapi, and largest call read from its API, in bytes",
    )
    vapi_report_seconds: float = Field(
        120,
        ge=SECONDS_MIN,
        le=86_400,
        description="How long a call's report is waited for before we ask",
    )
    vapi_silent_seconds: float = Field(
        180,
        ge=SECONDS_MIN,
        le=86_400,
        description="How long nothing is heard of a live call before we ask",
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
    def _is_a_redis(cls, value: str) -> str:
        if value:
            check_redis_address(value)
        return value

    @field_validator("twilio_recheck_seconds")
    @classmethod
    def _rechecks_while_unsure(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("twilio_unsure_seconds", value):
            raise ValueError(
                "must not be more than TWILIO_UNSURE_SECONDS, or nothing is read again"
            )
        return value

    @field_validator("public_url", "paypal_base_url", "twilio_base_url", "vapi_base_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value and not value.startswith(("https://", "http://")):
            raise ValueError("must start with https:// or http://")
        return value.rstrip("/")

    @field_validator("paypal_webhook_id")
    @classmethod
    def _is_an_id_of_ours(cls, value: str) -> str:
        # PayPal's simulator signs events with the literal id WEBHOOK_ID for every developer. A
        # webhook endpoint with that id would accept forged events.
        if value.upper() == "WEBHOOK_ID":
            raise ValueError("is the simulator's, for which anybody can have events signed")
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
