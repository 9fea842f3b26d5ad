"""Which providers there are, built from settings: the one place that knows their addresses."""

from __future__ import annotations

from dataclasses import dataclass, replace

from base.channels import Route
from base.enums import CallClass, Provider
from base.outcomes import Refused
from base.settings import Settings
from providers.http.limits import Gate, Line
from providers.paypal.api import PayPalApi
from providers.twilio.api import TwilioApi
from providers.vapi.api import VapiApi

#: Source: the servers of PayPal's OpenAPI files.
_PAYPAL_URLS = {
    "live": "https://api-m.paypal.com",
    "sandbox": "https://api-m.sandbox.paypal.com",
}
#: Seconds that all tries of one read at Twilio take together: a job reads twice, and sets once.
_TWILIO_WINDOW_SECONDS = 5.0
#: Seconds that all tries of one question to Vapi take together: a round of ending a call asks it,
#: tells it, and tells Twilio.
_VAPI_WINDOW_SECONDS = 5.0
#: Who can charge a payment method that it stores, without the payer: automatic top-up asks for it.
#: None can as yet, so that none is enabled and nothing is decided.
CHARGEABLE: frozenset[Provider] = frozenset()


@dataclass(frozen=True)
class Providers:
    """Everything outside that can be asked or told, by calls of one class; safe to share between
    threads. Each class has connections of its own, so that none waits for another's.
    """

    paypal: PayPalApi
    twilio: TwilioApi
    vapi: VapiApi
    chargeable: frozenset[Provider] = CHARGEABLE
    call_class: CallClass = CallClass.SAFETY
    #: The same providers for calls of the other classes.
    others: tuple[Providers, ...] = ()

    def for_class(self, call_class: CallClass) -> Providers:
        """This function will give the same providers for calls of a class."""
        return next(one for one in (self, *self.others) if one.call_class is call_class)

    def billing(self, provider: str) -> PayPalApi:
        """This function will give the provider that subscriptions and payments are read back from.

        Raises: Refused UNKNOWN_PROVIDER.
        """
        if provider != Provider.PAYPAL:
            raise Refused("UNKNOWN_PROVIDER", provider)
        return self.paypal

    def close(self) -> None:
        """This function will close the connections that stand."""
        for one in (self, *self.others):
            one.paypal.close()
            one.twilio.close()
            one.vapi.close()


def build(settings: Settings, gate: Gate | None = None) -> Providers:
    """This function will make the providers' clients; nothing is asked of anybody yet.

    They are for safety calls, and hold those for the other classes. Without a gate, as for what is
    asked while a sender waits for its answer, every call goes out at once. Credentials that are
    not set are found out by the first question: CredentialsRejected.
    """
    safety, *others = (_of_class(settings, gate, one) for one in CallClass)
    return replace(safety, others=tuple(others))


def _of_class(settings: Settings, gate: Gate | None, call_class: CallClass) -> Providers:
    def line(provider: Provider, account: str) -> Line:
        return Line(Route(provider, account, call_class), gate)

    return Providers(
        paypal=PayPalApi(
            settings.paypal_base_url or _PAYPAL_URLS[settings.paypal_environment],
            settings.paypal_client_id,
            settings.paypal_client_secret.get_secret_value(),
            line=line(Provider.PAYPAL, settings.paypal_client_id),
        ),
        twilio=TwilioApi(
            settings.twilio_account_sid,
            settings.twilio_auth_token.get_secret_value(),
            settings.twilio_base_url,
            window_seconds=_TWILIO_WINDOW_SECONDS,
            line=line(Provider.TWILIO, settings.twilio_account_sid),
        ),
        vapi=VapiApi(
            settings.vapi_api_key.get_secret_value(),
            settings.vapi_base_url,
            window_seconds=_VAPI_WINDOW_SECONDS,
            bytes_max=settings.vapi_body_bytes_max,
            line=line(Provider.VAPI, "vapi"),
        ),
        call_class=call_class,
    )
