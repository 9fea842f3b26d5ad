"""Which providers there are, built from settings: the one place that knows their addresses."""

from __future__ import annotations

from dataclasses import dataclass

from base.enums import Provider
from base.outcomes import Refused
from base.settings import Settings
from providers.paypal.api import PayPalApi
from providers.twilio.api import TwilioApi

#: Source: the servers of PayPal's OpenAPI files.
_PAYPAL_URLS = {
    "live": "https://api-m.paypal.com",
    "sandbox": "https://api-m.sandbox.paypal.com",
}
#: Seconds that all tries of one read at Twilio take together: a job reads twice, and sets once.
_TWILIO_WINDOW_SECONDS = 5.0
#: Who can charge a payment method that it stores, without the payer: automatic top-up asks for it.
#: None can as yet, so that none is enabled and nothing is decided.
CHARGEABLE: frozenset[Provider] = frozenset()


@dataclass(frozen=True)
class Providers:
    """Everything outside that can be asked or told; safe to share between threads."""

    paypal: PayPalApi
    twilio: TwilioApi
    chargeable: frozenset[Provider] = CHARGEABLE

    def billing(self, provider: str) -> PayPalApi:
        """This function will give the provider that subscriptions and payments are read back from.

        Raises: Refused UNKNOWN_PROVIDER.
        """
        if provider != Provider.PAYPAL:
            raise Refused("UNKNOWN_PROVIDER", provider)
        return self.paypal

    def close(self) -> None:
        """This function will close the connections that stand."""
        self.paypal.close()
        self.twilio.close()


def build(settings: Settings) -> Providers:
    """This function will make the providers' clients; nothing is asked of anybody yet.

    Credentials that are not set are found out by the first question: CredentialsRejected.
    """
    return Providers(
        paypal=PayPalApi(
            settings.paypal_base_url or _PAYPAL_URLS[settings.paypal_environment],
            settings.paypal_client_id,
            settings.paypal_client_secret.get_secret_value(),
        ),
        twilio=TwilioApi(
            settings.twilio_account_sid,
            settings.twilio_auth_token.get_secret_value(),
            settings.twilio_base_url,
            window_seconds=_TWILIO_WINDOW_SECONDS,
        ),
    )
