"""A running sandbox, its control plane, and what a listening ingress has heard."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from base.clock import wait_until

ROOT = Path(__file__).parents[1]
LIMIT_SECONDS = 10.0


@dataclass
class Heard:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Listener:
    """Stands where the ingress would: keeps every request, answers as it is told."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    #: Status codes of the next answers; 200 when there are no more.
    answers: list[int] = field(default_factory=list)

    def wait_for(self, count: int) -> list[Heard]:
        assert wait_until(lambda: len(self.heard) >= count, limit_seconds=LIMIT_SECONDS)
        return self.heard[:count]


class House:
    """A running sandbox and a client for its control plane."""

    def __init__(self, process: subprocess.Popen[bytes], info: dict) -> None:
        self.process = process
        self.info = info
        self.http = httpx.Client(base_url=info["base_url"], trust_env=False, timeout=LIMIT_SECONDS)

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


def start(state: Path, *arguments: str) -> House:
    command = [sys.executable, "-m", "sandbox", "--port", "0", "--state", str(state), *arguments]
    process = subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)})
    info = state / "sandbox.json"
    ready = wait_until(lambda: info.exists() or process.poll() is not None, limit_seconds=20)
    assert ready and info.exists()
    return House(process, json.loads(info.read_text()))


def stop(house: House) -> int:
    house.http.close()
    house.process.terminate()
    return house.process.wait(timeout=LIMIT_SECONDS)
