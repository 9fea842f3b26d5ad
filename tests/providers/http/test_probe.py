"""Turns: which calls are held back while a provider does not answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from base.channels import ProviderChannel
from base.enums import Provider, RequestClass
from base.outcomes import HeldBack, OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import CredentialsRejected, ProviderSilent
from providers.http import probe as under_test
from providers.http.limits import ChannelLimits
from providers.http.probe import SilenceLimit


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(under_test, "_SILENT_SECONDS", 0.0)


def limit_of(call_class: RequestClass) -> SilenceLimit:
    return SilenceLimit(ChannelLimits(ProviderChannel(Provider.TWILIO, "AC1", call_class)), 5.0)


def fail(limit: SilenceLimit, error: Exception) -> None:
    with pytest.raises(type(error)), limit.request():
        raise error


def is_held_back_beside_another(limit: SilenceLimit) -> bool:
    """Return whether a call is held back while another waits for the provider."""
    waits, over = threading.Event(), threading.Event()

    def request() -> None:
        with limit.request():
            waits.set()
            over.wait(10)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(request)
        assert waits.wait(10)
        try:
            with limit.request():
                return False
        except HeldBack as error:
            return error.delay_seconds == 5.0
        finally:
            over.set()
            first.result(10)


@pytest.mark.parametrize("error", [ProviderSilent("not reached"), OutcomeUnknown("lost")])
def test_one_safety_call_at_a_time_probes_until_one_is_answered(error):
    limit = limit_of(RequestClass.SAFETY)
    assert not is_held_back_beside_another(limit)
    fail(limit, error)
    # The waiting call ends with an answer, so all calls go out again
    assert is_held_back_beside_another(limit)
    assert not is_held_back_beside_another(limit)


@pytest.mark.parametrize(
    "no",
    [
        ProviderUnavailable("HTTP 503"),
        Refused("SUBACCOUNT_MISSING", "HTTP 404"),
        CredentialsRejected("HTTP 401"),
    ],
)
def test_refusal_counts_as_an_answer(no):
    limit = limit_of(RequestClass.SAFETY)
    fail(limit, ProviderSilent("not reached"))
    fail(limit, no)
    assert not is_held_back_beside_another(limit)


def test_internal_error_lets_another_call_probe():
    limit = limit_of(RequestClass.SAFETY)
    fail(limit, ProviderSilent("not reached"))
    fail(limit, KeyError("a bug"))
    assert is_held_back_beside_another(limit)


@pytest.mark.parametrize("call_class", [RequestClass.MONEY, RequestClass.BULK])
def test_other_classes_are_not_limited_to_one_probe(call_class):
    limit = limit_of(call_class)
    fail(limit, ProviderSilent("not reached"))
    assert not is_held_back_beside_another(limit)
