"""The count of outgoing calls: a correct one, then wrong charges and answers."""

from __future__ import annotations

import pytest

from base.clock import wait_until
from base.operators import Operator
from chaos.customers import CALL_RATE
from chaos.phone_count import talked_ms
from domain.calls import committing, reservations
from domain.calls.rates import set_rate
from tests.chaos.test_count import AtRest


class Dialled:
    """A reserved call that the sandbox dialled and ended; it is not charged yet."""

    def __init__(self, system: AtRest) -> None:
        self.system, self.world = system, system.world
        self.world.do(
            lambda session, now: set_rate(
                session, system.org, CALL_RATE, operator=Operator("x", "y"), now=now
            )
        )
        control = self.world.sandbox.control
        asked = {"deliver": False, "queued_seconds": 0, "ring_seconds": 0, "talk_seconds": 0.1}
        self.vapi_id = control("POST", "/vapi/calls", asked)["id"]
        path = f"/vapi/calls/{self.vapi_id}"
        assert wait_until(lambda: control("GET", path)["ended"] is not None, limit_seconds=10)
        self.ms = talked_ms(control("GET", path)["call"])
        system.journal_answer("book", "o1", 0, "OK")
        system.journal_answer("dial", "o1", 0, self.vapi_id)

    def reserve(self, call_id: str = "o1", vapi_id: str | None = None) -> None:
        reserved = self.world.do(
            lambda session, now: reservations.reserve_for_call(
                session,
                self.system.org,
                call_id=call_id,
                provider_call_id=vapi_id,
                estimated_seconds=10,
                now=now,
            )
        )
        assert reserved.outcome.ok

    def commit(self, call_id: str = "o1", ms: int | None = None) -> None:
        done = self.world.do(
            lambda session, now: committing.commit_for_call(
                session,
                self.system.org,
                call_id=call_id,
                duration_ms=self.ms if ms is None else ms,
                now=now,
            )
        )
        assert done.outcome.ok

    def problems(self) -> list[str]:
        return self.system.problems()


@pytest.fixture
def dialled(world, urls, tmp_path):
    return Dialled(AtRest(world, urls, tmp_path / "journal"))


@pytest.fixture
def charged(dialled):
    dialled.reserve(vapi_id=dialled.vapi_id)
    dialled.commit()
    assert dialled.problems() == []
    return dialled


def test_outgoing_call_is_right_when_charged_under_either_id(dialled):
    # Given a reservation that was never paired, and Vapi's call under another product ID
    dialled.reserve()
    dialled.reserve("adopted", dialled.vapi_id)
    # When one is charged and the other is released, then there is no problem
    dialled.commit("o1", 0)
    dialled.commit("adopted")
    assert dialled.problems() == []


def test_outgoing_call_is_doubled_when_charged_under_both_ids(dialled):
    dialled.reserve()
    dialled.reserve("adopted", dialled.vapi_id)
    dialled.commit()
    dialled.commit("adopted")
    assert dialled.problems() == ["doubled outgoing", "drift wallet"]


def test_outgoing_call_is_lost_when_it_is_not_charged(dialled):
    dialled.reserve()
    dialled.commit(ms=0)
    assert dialled.problems() == ["lost outgoing", "drift wallet"]


def test_outgoing_call_is_lost_when_it_is_not_known(dialled):
    assert dialled.problems() == ["lost outgoing", "drift wallet"]


def test_outgoing_call_is_lost_when_its_hold_is_open(dialled):
    dialled.reserve()
    assert dialled.problems() == ["lost outgoing", "lost outgoing", "drift wallet"]


def test_reservation_is_doubled_when_charged_and_never_dialled(charged):
    charged.system.journal_answer("book", "o2", 0, "OK")
    charged.reserve("o2")
    charged.commit("o2", 1_000)
    assert charged.problems() == ["doubled outgoing", "drift wallet"]


@pytest.mark.parametrize(
    ("what", "outcome", "expected"),
    [
        ("bill", "OK", []),
        ("bill", "IDEMPOTENCY_CONFLICT", ["lost outgoing"]),
        ("bill", None, ["lost outgoing"]),
        ("pair", "CALL_SETTLED", []),
        ("pair", "FROZEN_WALLET", []),
        ("pair", "IDEMPOTENCY_CONFLICT", ["lost outgoing"]),
        ("pair", None, ["lost outgoing"]),
    ],
)
def test_outgoing_call_is_lost_when_the_answer_is_wrong(charged, what, outcome, expected):
    charged.system.journal_answer(what, "o1", 0, outcome)
    assert charged.problems() == expected


@pytest.mark.parametrize("what", ["longer", "denied"])
def test_contradicting_report_is_lost_until_it_is_alerted(charged, what):
    charged.system.journal_answer(what, "o1", 0, "OK")
    assert charged.problems() == ["lost outgoing"]
    charged.system.sql(
        "INSERT INTO alerts (kind, organization_id, subject, severity, details, raised_at)"
        f" VALUES ('call_differs', '{charged.system.org}', 'o1', 'warning', '{{}}', now())"
    )
    assert charged.problems() == []


def test_denied_conversation_is_right_when_the_call_is_marked(charged):
    charged.system.journal_answer("denied", "o1", 0, "OK")
    charged.system.sql("UPDATE calls SET oddities = ARRAY['talk_denied']")
    assert charged.problems() == []
