"""Other webhooks that arrive during a measurement: callbacks and payment events."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.sender import drip
from benchmarks.system import System
from benchmarks.webhooks import PayPalSigner, billing_event, make_subaccounts, twilio_callbacks

#: Webhooks per second, half of each kind.
_PER_SECOND = 100


@contextmanager
def others(system: System, port: int, signer: PayPalSigner) -> Iterator[None]:
    """Send other webhooks at a steady rate, on a thread, until the block ends."""
    accounts = make_subaccounts(system, 2)
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            while not stop.is_set():
                half = _PER_SECOND // 2
                callbacks = twilio_callbacks(half, accounts, system.env["PUBLIC_URL"])
                bodies = [billing_event() for _ in range(half)]
                mixed = itertools.chain.from_iterable(
                    zip(callbacks, signer.requests(bodies), strict=True)
                )
                drip(port, list(mixed), per_second=_PER_SECOND)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="others")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise SystemExit(f"the other webhooks failed: {failed[0]}")
