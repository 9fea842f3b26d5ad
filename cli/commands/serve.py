"""Run one process, as production does: an ingress, a worker or a relay.

Each command imports its own process only, so that a restarted process serves again soon.
"""

from __future__ import annotations

from base.enums import Queue
from base.log import configure
from base.settings import Settings, load_settings, require
from cli.errors import clear_errors
from db.logins import check_serving_login


def ingress() -> None:
    """Run the ingress: it verifies webhooks and records them."""
    with clear_errors():
        settings = _serving_settings()
        require_providers(settings)
        from ingress.app import serve
        from providers.registry import build

        serve(settings, build(settings))


def serve_worker(queues: set[Queue], threads: int) -> None:
    """Run a worker of these queues until it is stopped."""
    with clear_errors():
        settings = _serving_settings()
        require_providers(settings)
        from workers.process import serve

        serve(settings, queues, threads)


def relay() -> None:
    """Run a relay, which repeats lost notifications and stages periodic jobs."""
    with clear_errors():
        settings = _serving_settings()
        from workers.relay import serve

        serve(settings)


def require_providers(settings: Settings) -> None:
    """Check that the providers' credentials are given.

    Raises: SettingsError that names every missing one in one line.
    """
    require(
        settings,
        "paypal_client_id",
        "paypal_client_secret",
        "paypal_webhook_id",
        "twilio_account_sid",
        "twilio_auth_token",
    )


def _serving_settings() -> Settings:
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    require(settings, "database_url", "redis_url")
    check_serving_login(settings.database_url)
    return settings
