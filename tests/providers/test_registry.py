from __future__ import annotations

from dataclasses import fields

import pytest

from base.channels import CALLED
from base.enums import Provider, RequestClass
from base.settings import Settings
from providers import registry
from providers.errors import CredentialsRejected
from tests.providers.support import SID, Loopback, Reply

CALL = "019d0000-0000-7000-8000-000000000003"


def test_provider_without_credentials_raises_at_its_first_request(loopback: Loopback):
    # Given settings with base URLs but no credentials
    settings = Settings(
        paypal_base_url=loopback.url, twilio_base_url=loopback.url, vapi_base_url=loopback.url
    )
    # When the providers are built and called
    providers = registry.build(settings)
    # Then each call is refused, and no request leaves this process
    with pytest.raises(CredentialsRejected):
        providers.paypal.get_subscription("I-BW452GLLEP1G")
    with pytest.raises(CredentialsRejected):
        providers.twilio.get_subaccount(SID)
    with pytest.raises(CredentialsRejected):
        providers.vapi.get_call(CALL)
    providers.close()
    assert loopback.asked == []


def test_rejected_credentials_are_not_a_refused_job(loopback: Loopback):
    # Given providers that reject our credentials
    loopback.answer = lambda asked: Reply(401, b'{"error":"invalid_client"}')
    providers = registry.build(
        Settings(
            paypal_base_url=loopback.url,
            paypal_client_id="c",
            paypal_client_secret="s",
            twilio_base_url=loopback.url,
            twilio_account_sid="AC" + "f" * 32,
            twilio_auth_token="t",
            vapi_base_url=loopback.url,
            vapi_api_key="k",
        )
    )
    # When they are called, Then an operator has to act
    with pytest.raises(CredentialsRejected):
        providers.paypal.get_subscription("I-BW452GLLEP1G")
    with pytest.raises(CredentialsRejected):
        providers.twilio.get_subaccount(SID)
    with pytest.raises(CredentialsRejected):
        providers.vapi.get_call(CALL)
    providers.close()
    assert len(loopback.asked) == 3


def test_each_request_class_has_its_own_vapi_client():
    providers = registry.build(Settings())
    clients = [providers.for_class(one).vapi for one in RequestClass]
    assert len({id(one) for one in clients}) == len(RequestClass)
    providers.close()


def test_called_providers_are_those_that_have_a_client():
    # Circuit breakers, rate limits and what an operator sees of them follow this list.
    assert set(CALLED) == set(Provider) & {one.name for one in fields(registry.Providers)}
