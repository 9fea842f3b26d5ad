"""A server that does not greet as Redis does counts as away, each time."""

from __future__ import annotations

import pytest
import redis

from db.redis.client import connect
from tests.support.wrong_server import answering


def test_connection_fails_each_time_when_the_greeting_is_not_of_redis():
    with answering(b"*1\r\n$1\r\na\r\n") as url, connect(url) as client:
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
