"""Builds the clients of all providers from settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from base.channels import ProviderChannel
from base.enums import Provider, RequestClass
from base.outcomes import Refused
from base.problems.providers import UNKNOWN_PROVIDER
from base.settings import Settings
from providers.http.limits import ChannelLimits, Gate
from providers.paypal.api import PayPalApi
from providers.twilio.api import TwilioApi
from providers.vapi.api import CALL_BYTES_MAX, VapiApi

#: Source: the servers of PayPal's OpenAPI files.
_PAYPAL_URLS = {
    "live": "https://api-m.paypal.com",
    "sandbox": "https://api-m.sandbox.paypal.com",
}
#: Seconds for all tries of one read at Twilio. A job reads twice and sets the status once.
_TWILIO_WINDOW_SECONDS = 5.0
#: Seconds for all tries of one request to Vapi. One round of ending a call reads it from Vapi,
#: sends Vapi a command, and ends the call at Twilio.
_VAPI_WINDOW_SECONDS = 5.0
#: Providers that can charge a stored payment method without the payer, as automatic top-up needs.
#: No provider can do this yet, so automatic top-up cannot be enabled.
CHARGEABLE: frozenset[Provider] = frozenset()


@dataclass(frozen=True)
class Providers:
    """The provider clients for calls of one class. Threads may share them.

    Each class has its own connections, so that no class waits for another one's.
    """

    paypal: PayPalApi
    twilio: TwilioApi
    vapi: VapiApi
    chargeable: frozenset[Provider] = CHARGEABLE
    call_class: RequestClass = RequestClass.SAFETY
    #: The same providers for calls of the other classes.
    others: tuple[Providers, ...] = ()

    def for_class(self, call_class: RequestClass) -> Providers:
        """Return the same providers for calls of another class."""
        return next(each for each in (self, *self.others) if each.call_class is call_class)

    def billing(self, provider: str) -> PayPalApi:
        """Return the provider from which subscriptions, payments and disputes are read.

        Raises: Refused UNKNOWN_PROVIDER.
        """
        if provider != Provider.PAYPAL:
            raise Refused(UNKNOWN_PROVIDER, provider)
        return self.paypal

    def close(self) -> None:
        """Close all connections of all classes."""
        for providers in (self, *self.others):
            providers.paypal.close()
            providers.twilio.close()
            providers.vapi.close()


def build(
    settings: Settings, gate: Gate | None = None, *, call_bytes_max: int = CALL_BYTES_MAX
) -> Providers:
    """Make the providers' clients without sending a request.

    The result is for safety calls, and holds the clients for the other classes. Without a gate,
    every call goes out at once. The ingress has no gate, because a sender waits for its answer. If
    credentials are not set, the first request raises CredentialsRejected. A call's
    record of more than `call_bytes_max` bytes is not read.
    """
    safety, *others = (
        _build_for_class(settings, gate, call_class, call_bytes_max) for call_class in RequestClass
    )
    return replace(safety, others=tuple(others))


def _build_for_class(
    settings: Settings, gate: Gate | None, call_class: RequestClass, call_bytes_max: int
) -> Providers:
    def limits(provider: Provider, account: str) -> ChannelLimits:
        return ChannelLimits(ProviderChannel(provider, account, call_class), gate)

    return Providers(
        paypal=PayPalApi(
            settings.paypal_base_url or _PAYPAL_URLS[settings.paypal_environment],
            settings.paypal_client_id,
            settings.paypal_client_secret.get_secret_value(),
            limits=limits(Provider.PAYPAL, settings.paypal_client_id),
        ),
        twilio=TwilioApi(
            settings.twilio_account_sid,
            settings.twilio_auth_token.get_secret_value(),
            settings.twilio_base_url,
            window_seconds=_TWILIO_WINDOW_SECONDS,
            limits=limits(Provider.TWILIO, settings.twilio_account_sid),
        ),
        vapi=VapiApi(
            settings.vapi_api_key.get_secret_value(),
            settings.vapi_base_url,
            window_seconds=_VAPI_WINDOW_SECONDS,
            bytes_max=call_bytes_max,
            limits=limits(Provider.VAPI, "vapi"),
        ),
        call_class=call_class,
    )
