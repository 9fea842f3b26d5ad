"""Who calls which provider, and for what: what circuits and rates are kept by."""

from __future__ import annotations

from dataclasses import dataclass

from base.enums import CallClass, Provider

#: Providers that something of ours calls; the others have neither circuits nor rates.
CALLED = (Provider.PAYPAL, Provider.TWILIO, Provider.VAPI)


@dataclass(frozen=True)
class Route:
    """One account at one provider, for calls of one class."""

    provider: Provider
    account: str
    call_class: CallClass

    def less_urgent(self) -> list[Route]:
        """This function will give this route and those of the account that are less urgent."""
        order = list(CallClass)
        classes = order[order.index(self.call_class) :]
        return [Route(self.provider, self.account, one) for one in classes]
