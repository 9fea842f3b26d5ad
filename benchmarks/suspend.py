"""suspend: time from a closing webhook's response to the freeze and suspension.

The wallet must be frozen, and the subaccount suspended at Twilio and read back. One organization
after another loses its subscription, while 100 other webhooks arrive each second. The cases are:

- no backlog
- 20,000 billing events waiting
- Redis stopped, killed or full, or one of two safety workers stopped

Freeze and suspension are read from the database after their commit. At the end of a round the
sandbox's Twilio is checked too.
"""

from __future__ import annotations

from benchmarks.closing import IS_FROZEN, IS_SUSPENDED, close, make_customers, seconds_until
from benchmarks.measure import Timing, timing
from benchmarks.others import others
from benchmarks.sender import send_all
from benchmarks.suspend_outages import suspend_outages
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner, billing_event
from local.ports import free_ports

_BACKLOG = 20_000
#: Suspensions of a round, one after the other, for each second of the requested duration.
_PER_SECOND = 5
#: Minimum number of measurements of each outage.
_OUTAGES_MIN = 5


def suspend(system: System, rounds: int, seconds: float) -> list[Timing]:
    """Measure without and with a backlog, then with Redis or a worker out of order."""
    count = max(5, round(_PER_SECOND * seconds))
    (port,) = free_ports(1)
    figures: list[Timing] = []
    with system.whole(port):
        for name, backlog in (("suspend", 0), ("suspend_behind_20000", _BACKLOG)):
            measured = [_round(system, port, count, backlog) for _ in range(rounds)]
            frozen, suspended = zip(*measured, strict=True)
            figures += [
                timing(f"{name}_frozen", "goal: p99 under 100", list(frozen)),
                timing(f"{name}_at_twilio", "goal: p99 under 2,000", list(suspended)),
            ]
    return figures + suspend_outages(system, max(_OUTAGES_MIN, rounds))


def _round(system: System, port: int, count: int, backlog: int) -> tuple[list[float], list[float]]:
    system.clear()
    signer = PayPalSigner(system.sandbox["paypal"])
    customers = make_customers(system, count)
    if backlog:
        _fill(system, port, signer, backlog)
    frozen, suspended = [], []
    with others(system, port, signer), system.bench.owner() as owner:
        for one in customers:
            answered_at = close(system, port, signer, one)
            frozen.append(seconds_until(owner, IS_FROZEN, one, answered_at))
            suspended.append(seconds_until(owner, IS_SUSPENDED, one, answered_at))
    for one in customers:
        status = system.control("GET", f"/twilio/subaccounts/{one.sid}")["status"]
        if status != "suspended":
            raise SystemExit(f"wrong: {one.sid} is {status} at Twilio")
    return frozen, suspended


def _fill(system: System, port: int, signer: PayPalSigner, backlog: int) -> None:
    """Fill the billing queue with events, each accepted and notified as usual."""
    send_all(port, signer.requests([billing_event() for _ in range(backlog)]), connections=32)
