from __future__ import annotations

import pytest

from base.addresses import SentinelAddress, check_redis_address, sentinel_address
from base.settings import SettingsError, load_settings


def test_sentinel_url_has_hosts_service_and_login():
    found = sentinel_address(
        "rediss+sentinel://us%40er:p%2Fw@one.example:26380,[::1]:7,two.example/holdfast/3"
        "?sentinel_password=s%26s&sentinel_username=watch"
    )
    assert found == SentinelAddress(
        sentinels=(("one.example", 26380), ("::1", 7), ("two.example", 26379)),
        service="holdfast",
        db=3,
        tls=True,
        username="us@er",
        password="p/w",
        sentinel_username="watch",
        sentinel_password="s&s",
    )


def test_sentinel_url_needs_neither_login_nor_database():
    found = sentinel_address("redis+sentinel://one:1/holdfast")
    assert found is not None
    assert (found.db, found.tls, found.username, found.password) == (0, False, None, None)


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h/0", "unix:///run/redis.sock?db=1"])
def test_url_of_one_server_is_passed_to_the_client(url):
    assert sentinel_address(url) is None
    check_redis_address(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://h:1/0",
        "h:6379",
        "redis://:hidden@h:port/0",
        "redis://:hidden@h:99999/0",
        "rediss://:hidden@h/zero",
        "redis://[hidden",
        "unix://",
        "redis+sentinel://h:1",
        "redis+sentinel://h:1/service/x",
        "redis+sentinel://h:x/service",
        "redis+sentinel://h:0/service",
        "redis+sentinel://h:70000/service",
        "redis+sentinel:///service",
        "redis+sentinel://one:1,,two:2/service",
        "redis+sentinel://:hidden@h:1/service/0?db=1",
    ],
)
def test_invalid_url_is_reported_in_one_line_without_the_url(url, monkeypatch):
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SettingsError, match="REDIS_URL: ") as caught:
        load_settings()
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
