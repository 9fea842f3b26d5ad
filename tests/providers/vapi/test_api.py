from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from base.channels import ProviderChannel
from base.clock import wait_until
from base.enums import CallStatus, Provider, RequestClass
from base.outcomes import HeldBack, OutcomeUnknown, ProviderUnavailable, Refused
from providers.errors import AnswerTooLarge, AnswerUnreadable, CredentialsRejected
from providers.http.limits import ChannelLimits
from providers.vapi.api import VapiApi
from tests.providers.support import Loopback, Reply, json_reply
from tests.providers.vapi.support import CALL, ENDED, call
from tests.support.sandbox import SANDBOX_SECONDS, RunningSandbox


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[VapiApi]:
    known = sandbox.info["vapi"]
    built = VapiApi(known["api_key"], known["base_url"], window_seconds=5)
    yield built
    built.close()


@pytest.fixture
def odd(loopback: Loopback) -> Iterator[VapiApi]:
    """Vapi's API, whose answers come from the loopback server."""
    built = VapiApi("key", loopback.url, window_seconds=5)
    yield built
    built.close()


def begun(sandbox: RunningSandbox, **more) -> str:
    """Start a call at the sandbox that lives until a test ends it."""
    asked = {
        "deliver": False,
        "queued_seconds": 0,
        "ring_seconds": 0,
        "metadata": {"holdfast_organization": "org_1", "holdfast_call": "call_1"},
        **more,
    }
    return sandbox.control("POST", "/vapi/calls", asked)["id"]


def wait_for(api: VapiApi, external_id: str, status: CallStatus) -> None:
    def is_so() -> bool:
        found = api.get_call(external_id)
        return found is not None and found.facts.status is status

    assert wait_until(is_so, limit_seconds=SANDBOX_SECONDS)


def test_live_call_is_read_with_its_control_url(api, sandbox):
    external_id = begun(sandbox)
    wait_for(api, external_id, CallStatus.IN_PROGRESS)
    found = api.get_call(external_id)
    assert found.facts.external_id == external_id
    assert (found.facts.organization_id, found.facts.call_id) == ("org_1", "call_1")
    assert found.facts.started_at is not None
    assert found.facts.duration_ms is None
    assert found.control_url.endswith(f"/call/{external_id}/control")


def test_ended_call_is_read_with_duration_and_cost(api, sandbox):
    external_id = begun(sandbox, talk_seconds=0.2)
    wait_for(api, external_id, CallStatus.ENDED)
    facts = api.get_call(external_id).facts
    between = round((facts.ended_at - facts.started_at).total_seconds() * 1000)
    assert facts.duration_ms == between >= 200
    assert facts.ended_reason == "customer-ended-call"
    assert facts.provider_cost_micros > 0
    assert (facts.never_connected, facts.anomalies) == (False, ())


def test_unanswered_call_is_read_as_unanswered(api, sandbox):
    external_id = begun(sandbox, answered=False)
    wait_for(api, external_id, CallStatus.ENDED)
    facts = api.get_call(external_id).facts
    assert (facts.duration_ms, facts.never_connected) == (0, True)


def test_call_that_vapi_does_not_know_is_none(api):
    assert api.get_call(str(uuid4())) is None


def test_ending_an_ended_call_is_no_error(api, sandbox):
    # Given a live call
    external_id = begun(sandbox)
    wait_for(api, external_id, CallStatus.IN_PROGRESS)
    control_url = api.get_call(external_id).control_url
    # When it is ended
    assert api.end(control_url) is True
    wait_for(api, external_id, CallStatus.ENDED)
    # Then it is over, and further orders to the call report that
    assert api.end(control_url) is False
    assert api.say(control_url, "Hello?", then_end=True) is False
    assert api.get_call(external_id).facts.ended_reason == "manually-canceled"


@pytest.mark.parametrize("then_end", [False, True])
def test_speech_ends_the_call_only_if_requested(api, sandbox, then_end):
    # Given a live call
    external_id = begun(sandbox)
    wait_for(api, external_id, CallStatus.IN_PROGRESS)
    # When a text is sent to it
    text = "Your credit is used up. „Auf Wiedersehen“"
    assert api.say(api.get_call(external_id).control_url, text, then_end=then_end) is True
    # Then the text is spoken once, and the call ends after it or continues
    seen = lambda: sandbox.control("GET", f"/vapi/calls/{external_id}")  # noqa: E731
    assert wait_until(
        lambda: [one.get("finished") is not None for one in seen()["spoken"]] == [True],
        limit_seconds=SANDBOX_SECONDS,
    )
    assert seen()["spoken"][0]["text"] == text
    if then_end:
        wait_for(api, external_id, CallStatus.ENDED)
    assert seen()["control_messages"] == 1
    assert (seen()["call"]["status"] == "ended") is then_end


@pytest.mark.parametrize("kind", ["act_then_drop", "status"])
def test_lost_answer_to_an_order_is_unknown_and_sent_once(api, sandbox, kind):
    # Given a call whose control URL loses its answers
    external_id = begun(sandbox)
    wait_for(api, external_id, CallStatus.IN_PROGRESS)
    control_url = api.get_call(external_id).control_url
    sandbox.fault("vapi", kind, match={"path_contains": "/control"})
    # When the order to end is sent, Then the outcome is unknown, and nothing is sent twice
    with pytest.raises(OutcomeUnknown):
        api.end(control_url)
    assert len(sandbox.requests(provider="vapi", path_contains="/control")) == 1


def test_unsent_order_is_unavailable():
    api = VapiApi("key", "http://127.0.0.1:1", window_seconds=1)
    with pytest.raises(ProviderUnavailable):
        api.end("http://127.0.0.1:1/call/x/control")
    api.close()


def test_read_is_repeated_and_a_changed_key_is_rejected(api, sandbox):
    external_id = begun(sandbox)
    sandbox.fault("vapi", "status", status=502, times=1)
    sandbox.fault("vapi", "drop", times=1)
    assert api.get_call(external_id).facts.external_id == external_id
    stranger = VapiApi("another", sandbox.info["vapi"]["base_url"], window_seconds=5)
    with pytest.raises(CredentialsRejected):
        stranger.get_call(external_id)
    stranger.close()


def test_no_request_is_sent_without_a_key(loopback):
    api = VapiApi("", loopback.url, window_seconds=5)
    with pytest.raises(CredentialsRejected):
        api.get_call(CALL)
    api.close()
    assert loopback.asked == []


@pytest.mark.parametrize(
    "external_id",
    ["", "x", "../assistant", f"{CALL}/..", f"{CALL}\n", CALL.replace("-", ""), f"{{{CALL}}}"],
)
def test_invalid_id_is_refused_without_a_request(odd, loopback, external_id):
    with pytest.raises(Refused) as caught:
        odd.get_call(external_id)
    assert caught.value.code == "INVALID_ID"
    assert loopback.asked == []


@pytest.mark.parametrize(
    "reply",
    [
        None,
        Reply(500),
        Reply(503, b"<html>"),
        Reply(429, headers={"Retry-After": "0"}),
        Reply(400, b"{}"),
        Reply(302, headers={"Location": "/"}),
        Reply(200, b"<html>a portal</html>"),
        Reply(200, b"[]"),
        Reply(200, b""),
        Reply(200, b'{"id":"' + CALL.encode() + b'","cost":1.0e9999999999999999999}'),
        Reply(404, b"<html>no such host</html>"),
        Reply(404, b""),
        Reply(410, b"<html>gone</html>"),
        json_reply({"id": str(uuid4()), "status": "ended"}),
        json_reply({"status": "ended"}),
    ],
)
def test_unanswered_read_is_an_outage_and_never_absent(odd, loopback, reply):
    loopback.answer = lambda asked: reply
    with pytest.raises(ProviderUnavailable):
        odd.get_call(CALL)


@pytest.mark.parametrize(
    "reply",
    [
        json_reply({"message": "Call not found."}, 404),
        json_reply({"message": "The call was deleted."}, 410),
        json_reply(call(status="not-found")),
        json_reply({"id": CALL, "status": "not-found"}),
    ],
)
def test_get_call_returns_none_when_vapi_has_no_such_call(odd, loopback, reply):
    loopback.answer = lambda asked: reply
    assert odd.get_call(CALL) is None
    assert len(loopback.asked) == 1


def large(size: int) -> Reply:
    shown = call(status="ended", endedAt=ENDED, artifact={"transcript": "x" * size})
    return json_reply(shown)


def test_call_of_several_megabytes_is_read(odd, loopback):
    loopback.answer = lambda asked: large(2_400_000)
    assert odd.get_call(CALL).facts.duration_ms == 127_598


def test_get_call_raises_too_large_once_when_the_call_is_over_its_bound(loopback):
    api = VapiApi("key", loopback.url, window_seconds=5, bytes_max=100_000)
    loopback.answer = lambda asked: large(100_000)
    with pytest.raises(AnswerTooLarge):
        api.get_call(CALL)
    assert len(loopback.asked) == 1
    loopback.answer = lambda asked: large(90_000)
    assert api.get_call(CALL) is not None
    api.close()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"id":"' + CALL.encode() + b'","id":"x"}', AnswerUnreadable),
        (b' {"id":', AnswerUnreadable),
        (b"<html>a portal</html>", ProviderUnavailable),
        (b"[]", ProviderUnavailable),
    ],
)
def test_only_an_answer_about_the_call_can_be_unreadable(odd, loopback, body, error):
    loopback.answer = lambda asked: Reply(200, body)
    with pytest.raises(ProviderUnavailable) as caught:
        odd.get_call(CALL)
    assert type(caught.value) is error


def test_call_is_read_with_or_without_a_control_url(odd, loopback):
    for monitor in (None, [], "x", {}, {"controlUrl": 5}):
        shown = call(status="ended", endedAt=ENDED, monitor=monitor)
        loopback.answer = lambda asked, shown=shown: json_reply(shown)
        assert odd.get_call(CALL).control_url is None
    assert odd.get_call(CALL.upper()).facts.external_id == CALL
    asked = loopback.asked[-1]
    assert asked.headers["Authorization"] == "Bearer key"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(200), True),
        (Reply(201, b'{"success":true}'), True),
        (Reply(404, b"<html>"), False),
        (Reply(410), False),
        (Reply(400), ProviderUnavailable),
        (Reply(429), ProviderUnavailable),
        (Reply(401), CredentialsRejected),
        (Reply(403), CredentialsRejected),
        (Reply(500), OutcomeUnknown),
        (Reply(307, headers={"Location": "/elsewhere"}), OutcomeUnknown),
        (None, OutcomeUnknown),
    ],
)
def test_every_answer_to_an_order_has_an_outcome(odd, loopback, reply, expected):
    loopback.answer = lambda asked: reply
    for send_order in (
        lambda: odd.end(f"{loopback.url}/control"),
        lambda: odd.say(f"{loopback.url}/control", "text", then_end=True),
    ):
        loopback.asked.clear()
        if isinstance(expected, bool):
            assert send_order() is expected
        else:
            with pytest.raises(expected):
                send_order()
        assert loopback.paths() == ["/control"]


def test_control_url_appears_in_no_log_and_no_message(api, sandbox, caplog):
    # Given everything that is logged
    caplog.set_level(logging.DEBUG)
    external_id = begun(sandbox)
    wait_for(api, external_id, CallStatus.IN_PROGRESS)
    # When a call is read and ended
    found = api.get_call(external_id)
    api.end(found.control_url)
    # Then its control URL is in no text or log; `base.log` silences httpx's own lines
    assert "/control" not in repr(found) + str(found)
    ours = [one for one in caplog.records if not one.name.startswith("httpx")]
    assert [one.getMessage() for one in ours if "/control" in one.getMessage()] == []


def test_one_thread_at_a_time_waits_for_a_silent_vapi(sandbox, monkeypatch):
    # Given safety calls, one of which has timed out
    monkeypatch.setattr("providers.http.probe._SILENT_SECONDS", 0.0)
    known, call_id = sandbox.info["vapi"], begun(sandbox)
    limits = ChannelLimits(ProviderChannel(Provider.VAPI, "vapi", RequestClass.SAFETY))
    api = VapiApi(
        known["api_key"], known["base_url"], window_seconds=SANDBOX_SECONDS, limits=limits
    )
    fault = sandbox.fault("vapi", "drop")
    with pytest.raises(ProviderUnavailable):
        api.get_call(call_id)
    sandbox.control("DELETE", f"/faults/{fault}")
    # When another waits, Then a third does not
    fault = sandbox.fault("vapi", "hold", times=1)
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(api.get_call, call_id)
        assert wait_until(
            lambda: sandbox.fault_now(fault)["held"] == 1, limit_seconds=SANDBOX_SECONDS
        )
        with pytest.raises(HeldBack):
            api.get_call(call_id)
        # And once it is answered, all calls go out as before
        sandbox.control("POST", f"/faults/{fault}/release")
        assert waits.result(SANDBOX_SECONDS) is not None
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(api.get_call, [call_id] * 4))
    api.close()
