"""Event delivery: what a thread produces while it stops is still delivered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from base.clock import wait_until
from chaos import payments
from chaos.journal import read_journal
from tests.chaos.scenes import make_scene


class SlowControl(ThreadingHTTPServer):
    """A control API that delays the answer to a payment and delivers every event."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked, self.may_answer = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: SlowControl

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer: Any = {"id": "a payment"}
        if self.path.endswith("/redeliver"):
            answer = [{"status_code": 200}]
        elif self.path.endswith("/events"):
            answer = [{"event_id": "WH-1"}]
        else:
            self.server.asked.set()
            self.server.may_answer.wait(60)
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def slow_control() -> Iterator[SlowControl]:
    server = SlowControl()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_event_is_delivered_when_it_is_queued_after_the_stop(urls, tmp_path):
    # Given a thread that is making a payment at the moment at which the traffic stops
    with slow_control() as control:
        control_url = f"http://127.0.0.1:{control.server_port}"
        scene = make_scene(urls, tmp_path, control_url, holds=False)
        threads = [
            threading.Thread(target=work, daemon=True) for _, work in payments.threads(scene)
        ]
        for thread in threads:
            thread.start()
        assert control.asked.wait(20)
        scene.stop()
        # Then no sender ends before that thread has produced the payment's event
        gone = wait_until(lambda: any(not one.is_alive() for one in threads), limit_seconds=1)
        assert not gone
        # And when it has, the event is delivered, and all threads end
        control.may_answer.set()
        for thread in threads:
            thread.join(60)
        scene.database.close()
    webhooks = read_journal(tmp_path / "journal").of("webhook")
    assert [request.outcome for request in webhooks.values()] == ["OK"]
    assert not any(thread.is_alive() for thread in threads)
