"""Provider channels: one account at one provider, for calls of one class.

Rate limits apply per channel. Circuit breakers apply per provider and class.
"""

from __future__ import annotations

from dataclasses import dataclass

from base.enums import Provider, RequestClass

#: Providers whose API Holdfast calls. The others need no circuit breaker and no rate limit.
CALLED = (Provider.PAYPAL, Provider.TWILIO, Provider.VAPI)


@dataclass(frozen=True)
class ProviderChannel:
    """A provider channel: calls of one class to one account at one provider."""

    provider: Provider
    account: str
    call_class: RequestClass

    def less_urgent(self) -> list[ProviderChannel]:
        """List this channel and the account's less urgent ones, most urgent first."""
        order = list(RequestClass)
        classes = order[order.index(self.call_class) :]
        return [ProviderChannel(self.provider, self.account, one) for one in classes]
