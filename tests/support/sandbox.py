"""A running sandbox, its control API, and a listener in place of the ingress."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx

from base.clock import wait_until
from local import ROOT

#: Seconds within which the sandbox must answer, send a message, or end.
SANDBOX_SECONDS = 10.0


@dataclass
class ReceivedRequest:
    path: str
    headers: dict[str, str]
    body: bytes

    def message(self) -> dict:
        """Return the message in Vapi's envelope; {} if it is none."""
        return json.loads(self.body)["message"] if b'"message"' in self.body else {}


@dataclass
class Reply:
    """A listener's answer to a message, and an event that it waits for first."""

    body: object = None
    status: int = 200
    wait: threading.Event | None = None

    def encoded(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass
class Listener:
    """Takes the place of the ingress: keeps every request, answers as configured."""

    url: str
    received: list[ReceivedRequest] = field(default_factory=list)
    #: Status codes of the next answers; 200 when the list is empty.
    answers: list[int] = field(default_factory=list)
    #: Answers to Vapi's messages, by their type; an empty 200 for any other type.
    replies: dict[str, Reply] = field(default_factory=dict)

    def answer(self, request: ReceivedRequest) -> tuple[int, bytes]:
        self.received.append(request)
        reply = self.replies.get(request.message().get("type", "")) if self.replies else None
        if reply is not None and reply.wait is not None:
            reply.wait.wait(SANDBOX_SECONDS)
        status = self.answers.pop(0) if self.answers else 200
        return (status, b"") if reply is None else (reply.status, reply.encoded())

    def messages(self, call_id: str = "", kind: str = "") -> list[dict]:
        """List Vapi's messages received so far, of one call and one type if given."""
        found = [one.message() for one in list(self.received)]
        return [
            one
            for one in found
            if call_id in ("", one.get("call", {}).get("id")) and kind in ("", one["type"])
        ]

    def wait_for_message(self, call_id: str, kind: str, count: int = 1) -> list[dict]:
        listed = partial(self.messages, call_id, kind)
        assert wait_until(lambda: len(listed()) >= count, limit_seconds=SANDBOX_SECONDS), listed()
        return listed()

    def wait_for(self, count: int) -> list[ReceivedRequest]:
        assert wait_until(lambda: len(self.received) >= count, limit_seconds=SANDBOX_SECONDS)
        return self.received[:count]


class RunningSandbox:
    """A running sandbox and a client for its control API."""

    def __init__(self, process: subprocess.Popen[bytes], info: dict) -> None:
        self.process = process
        self.info = info
        self.http = httpx.Client(
            base_url=info["base_url"], trust_env=False, timeout=SANDBOX_SECONDS
        )

    def control(self, method: str, path: str, body: dict | None = None, code: int | None = None):
        answer = self.http.request(method, f"/_control{path}", json=body)
        assert answer.status_code == code if code else answer.is_success, answer.text
        return answer.json() if answer.content else None

    def fault(self, provider: str, kind: str, **more) -> str:
        return self.control("POST", "/faults", {"provider": provider, "kind": kind, **more})["id"]

    def fault_now(self, fault_id: str) -> dict:
        return next(one for one in self.control("GET", "/faults") if one["id"] == fault_id)

    def requests(self, **query: str) -> list[dict]:
        return self.http.get("/_control/requests", params=query).json()


def start(state: Path, *arguments: str) -> RunningSandbox:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--state", str(state), *arguments]
    info = state / "sandbox.json"
    # A killed sandbox leaves its file behind, and the new one would seem ready.
    info.unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    ready = wait_until(lambda: info.exists() or process.poll() is not None, limit_seconds=120)
    if not ready:
        process.kill()
        process.wait()
    assert info.exists()
    return RunningSandbox(process, json.loads(info.read_text()))


def stop(sandbox: RunningSandbox) -> int:
    sandbox.http.close()
    sandbox.process.terminate()
    return sandbox.process.wait(timeout=SANDBOX_SECONDS)
