"""The addresses that orders to a call are sent to: Vapi's, or a stand-in's own."""

from __future__ import annotations

import pytest

from base.channels import ProviderChannel
from base.enums import Provider, RequestClass
from base.outcomes import HeldBack, Refused
from providers.http.limits import ChannelLimits
from providers.vapi.api import VapiApi


class Closed:
    """A gate that holds every request back, so that a test sees what would be sent."""

    def enter(self, route: ProviderChannel, wait_seconds_max: float) -> tuple[float, str]:
        raise HeldBack("closed")

    def leave(self, route: ProviderChannel, ticket: str, outcome: str, hold_seconds: float) -> None:
        raise AssertionError("nothing had gone out")


def held(base_url: str = "") -> VapiApi:
    limits = ChannelLimits(ProviderChannel(Provider.VAPI, "vapi", RequestClass.BULK), Closed())
    return VapiApi("key", base_url, window_seconds=1, limits=limits)


def goes_out(api: VapiApi, control_url: str) -> bool:
    try:
        api.end(control_url)
    except HeldBack:
        return True
    except Refused as refused:
        assert (refused.code, refused.ids) == ("CONTROL_URL", {})
        assert not control_url or control_url not in str(refused)
        return False
    raise AssertionError("it was sent")


@pytest.mark.parametrize(
    "base_url", ["", "https://api.vapi.ai", "https://api.eu.vapi.ai", "https://API.vapi.ai/"]
)
@pytest.mark.parametrize(
    "control_url",
    [
        "https://phone-call-websocket.aws-us-west-2-backend-production2.vapi.ai/a/control",
        "https://vapi.ai/a/control",
        "https://api.vapi.ai:443/a/control?x=1",
        "HTTPS://API.VAPI.AI/a/control",
        "  <https://api.vapi.ai/a/control> ",
    ],
)
def test_order_is_sent_to_a_control_url_of_vapi(base_url, control_url):
    api = held(base_url)
    assert goes_out(api, control_url)
    api.close()


@pytest.mark.parametrize(
    "control_url",
    [
        "",
        "<>",
        "vapi.ai/control",
        "//vapi.ai/control",
        "http://api.vapi.ai/control",
        "wss://api.vapi.ai/control",
        "file:///etc/passwd",
        "https://evil.example/control",
        "https://evil.example/?vapi.ai",
        "https://evil.example#.vapi.ai/",
        "https://vapi.ai.evil.example/control",
        "https://evilvapi.ai/control",
        "https://vapi.ai./control",
        "https://.vapi.ai/control",
        "https://api.vapi.ai@evil.example/control",
        "https://user:pass@api.vapi.ai/control",
        "https://@api.vapi.ai/control",
        "https://api.vapi.ai:8443/control",
        "https://api.vapi.ai:/control",
        "https://api.vapi.ai:4433/control",
        "https://evil.example\\.vapi.ai/control",
        "https://evil.example\\@vapi.ai/control",
        "https://evil.example%2f.vapi.ai/control",
        "https://127.0.0.1/control",
        "https://[::1]/control",
        "https://[::1/control",
        "https://api.vapi.ai/con\ntrol",
        "https://api.vapi.ai\t/control",
        "https://api.vapi.ai/con trol",
        "https://ápi.vapi.ai/control",
        "https://api.vapi.ai/\u2028control",
        "https://api.vapi.ai/" + "a" * 2_000,
        "http://169.254.169.254/latest",
    ],
)
def test_any_other_control_url_is_refused_without_a_request(control_url):
    api = held()
    assert not goes_out(api, control_url)
    api.close()


def test_control_url_must_match_the_base_urls_scheme_host_and_port():
    api = held("http://127.0.0.1:8099/vapi")
    assert goes_out(api, "http://127.0.0.1:8099/vapi/call/x/control")
    for other in (
        "https://api.vapi.ai/control",
        "https://127.0.0.1:8099/control",
        "http://127.0.0.1:80990/control",
        "http://127.0.0.1:8098/control",
        "http://127.0.0.1/control",
        "http://127.0.0.1:8099@evil.example/control",
        "http://127.0.0.1:8099.evil.example/control",
        "http://x@127.0.0.1:8099/control",
        "http://127.0.0.1:8099",
    ):
        assert not goes_out(api, other), other
    api.close()
