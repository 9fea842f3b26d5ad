from __future__ import annotations

from dataclasses import fields

import pytest

from base.enums import Provider
from base.routes import CALLED
from base.settings import Settings
from providers import registry
from providers.errors import CredentialsRejected
from tests.providers.support import Loopback, Reply

SID = "AC" + "0" * 31 + "1"


def test_providers_without_credentials_are_built_and_say_so_when_asked(loopback: Loopback):
    # Given settings that name stand-ins but no credentials
    settings = Settings(paypal_base_url=loopback.url, twilio_base_url=loopback.url)
    # When the providers are built and asked
    providers = registry.build(settings)
    # Then nothing leaves this process
    with pytest.raises(CredentialsRejected):
        providers.paypal.get_subscription("I-BW452GLLEP1G")
    with pytest.raises(CredentialsRejected):
        providers.twilio.get_subaccount(SID)
    providers.close()
    assert loopback.asked == []


def test_refused_credentials_are_no_refusal_of_the_work(loopback: Loopback):
    # Given providers that do not know us
    loopback.answer = lambda asked: Reply(401, b'{"error":"invalid_client"}')
    providers = registry.build(
        Settings(
            paypal_base_url=loopback.url,
            paypal_client_id="c",
            paypal_client_secret="s",
            twilio_base_url=loopback.url,
            twilio_account_sid="AC" + "f" * 32,
            twilio_auth_token="t",
        )
    )
    # When they are asked, Then a person has to act
    with pytest.raises(CredentialsRejected):
        providers.paypal.get_subscription("I-BW452GLLEP1G")
    with pytest.raises(CredentialsRejected):
        providers.twilio.get_subaccount(SID)
    providers.close()
    assert len(loopback.asked) == 2


def test_a_provider_is_called_one_if_there_is_a_client_for_it():
    # Circuits, rates and what an operator sees of them follow this list.
    assert set(CALLED) == set(Provider) & {one.name for one in fields(registry.Providers)}
