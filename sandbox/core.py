"""The sandbox: its keys, its webhook target, and each provider's state."""

from __future__ import annotations

from typing import Any

from sandbox.delivery import Courier
from sandbox.exchange import Json
from sandbox.faults import Faults
from sandbox.journal import Journal
from sandbox.keys import Keys
from sandbox.paypal.state import PayPalState
from sandbox.store import Shelf, Store
from sandbox.stripe.state import StripeState
from sandbox.twilio.state import TwilioState
from sandbox.vapi.state import VapiState


class Sandbox:
    """The state that all stand-ins share, in one process and one event loop.

    A store with a file keeps the providers' resources across restarts.
    """

    def __init__(self, keys: Keys, base_url: str, target: str, store: Store | None = None) -> None:
        self.keys = keys
        self.base_url = base_url
        #: Base address of the ingress. A webhook goes to `/webhooks/<provider>` below it.
        self.target = target.rstrip("/")
        self.journal = Journal()
        self.faults = Faults()
        self.courier = Courier(before_send=self.save)
        self._store = store or Store()
        self._create_states()
        self._store.load(self._shelves())

    def save(self) -> None:
        """Write the changed resources, before an answer or a webhook shows them."""
        self._store.save(self._shelves())

    def webhook_url(self, provider: str) -> str:
        """Return the address that a provider's webhooks are delivered to."""
        return f"{self.target}/webhooks/{provider}"

    def api_url(self, provider: str) -> str:
        """Return the base address of a provider's stand-in."""
        return f"{self.base_url}/{provider}"

    def reset(self) -> None:
        """Forget everything except the keys, the target and PayPal's tokens.

        The tokens stay because a client may keep its token across a reset. If the
        stand-in forgot the token, it would refuse a client that did nothing wrong.
        """
        tokens = self.paypal.tokens
        self.faults.clear()
        self.courier.cancel()
        self.journal.clear()
        self._store.clear()
        self._create_states()
        self.paypal.tokens = tokens

    def info(self) -> Json:
        """Return what clients need: addresses, secrets, and how Vapi authenticates."""
        secrets = self.keys.secrets
        return {
            "base_url": self.base_url,
            "target": self.target,
            "paypal": {
                "base_url": self.api_url("paypal"),
                "client_id": secrets.paypal_client_id,
                "client_secret": secrets.paypal_client_secret,
                "webhook_id": secrets.paypal_webhook_id,
                "ca_file": str(self.keys.ca_file),
            },
            "twilio": {
                "base_url": self.api_url("twilio"),
                "account_sid": secrets.twilio_account_sid,
                "auth_token": self.twilio.parent.auth_token,
            },
            "stripe": {
                "base_url": self.api_url("stripe"),
                "api_key": secrets.stripe_api_key,
                "webhook_secret": secrets.stripe_webhook_secret,
            },
            "vapi": {
                "base_url": self.api_url("vapi"),
                "api_key": secrets.vapi_api_key,
                "server_secret": secrets.vapi_server_secret,
                # How Vapi's messages are authenticated. Only "hmac" uses hmac_secret.
                "authentication": self.vapi.authentication.mode,
                "hmac_secret": secrets.vapi_hmac_secret,
                "hmac_secret_is_used": self.vapi.authentication.mode == "hmac",
            },
        }

    def _shelves(self) -> list[Shelf[Any]]:
        states = (self.paypal, self.twilio, self.stripe, self.vapi)
        return [shelf for state in states for shelf in state.shelves()]

    def _create_states(self) -> None:
        secrets = self.keys.secrets
        self.paypal = PayPalState()
        self.twilio = TwilioState(secrets.twilio_account_sid, secrets.twilio_auth_token)
        self.stripe = StripeState()
        self.vapi = VapiState()
