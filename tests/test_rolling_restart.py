"""A rolling restart under load: no webhook is lost and none has effect twice.

Ingress, workers and relays are stopped and replaced in turn while webhooks arrive.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import httpx

from base.clock import wait_until
from db.models import InboxEvent, Job, WalletEntry
from db.redis.client import NAMESPACE
from local.ports import free_ports
from tests.ingress.support import Message
from tests.support.world import make_organization
from tests.workers.scenes import eventually

#: Number of payments that arrive during the restart; each is 10.00.
PAYMENTS = 40
#: Seconds within which all jobs must be done.
LIMIT_SECONDS = 60.0


def paid(sandbox, organization_id):
    """Return a signed webhook about a payment of 10.00 at PayPal's stand-in."""
    asked = {"organization_id": organization_id, "value": "10.00", "deliver": False}
    capture = sandbox.control("POST", "/paypal/captures", asked)
    asked |= {"event_type": "PAYMENT.CAPTURE.COMPLETED", "resource_id": capture["id"]}
    (created,) = sandbox.control("POST", "/paypal/events", asked)
    event = sandbox.control("GET", f"/paypal/events/{created['event_id']}")
    return Message(event["headers"], event["body"].encode())


def sent(client, message):
    """Send a webhook as a provider does: until it is accepted."""

    def accepted():
        try:
            return client.post(
                "/webhooks/paypal", content=message.body, headers=message.headers
            ).is_success
        except httpx.TransportError:
            return False

    assert wait_until(accepted, limit_seconds=LIMIT_SECONDS)


def test_a_rolling_restart_under_load_loses_and_doubles_nothing(
    world, processes, sandbox, redis_client
):
    # Given all processes running, and payments that have been made
    organization_id = make_organization(world.database)
    (port,) = free_ports(1)
    ingress = processes.ingress(port)
    workers = [processes.worker("safety", "billing") for _ in range(2)]
    relays = [processes.relay() for _ in range(2)]
    halfway, over = threading.Semaphore(0), []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20) as client:
        messages = [paid(sandbox, organization_id) for _ in range(PAYMENTS)]

        def send(message):
            sent(client, message)
            over.append(message)
            halfway.release()

        with ThreadPoolExecutor(4) as pool:
            sending = [pool.submit(send, message) for message in messages[: PAYMENTS // 2]]
            sending += [pool.submit(sent, client, messages[0])]  # a provider repeats a webhook
            halfway.acquire(timeout=LIMIT_SECONDS)

            # When each process gets SIGTERM and is replaced, one after the other
            for worker in workers:
                processes.worker("safety", "billing")
                assert worker.stop() == 0, worker.output()
            sending += [pool.submit(send, message) for message in messages[PAYMENTS // 2 :]]
            for relay in relays:
                processes.relay()
                assert relay.stop() == 0, relay.output()
            assert ingress.stop() in (0, -15), ingress.output()
            ingress = processes.ingress(port)  # It uses the old one's port, as behind a proxy.
            for one in sending:
                one.result(timeout=LIMIT_SECONDS)

    # Then every accepted payment was stored and credited once
    def at_rest():
        return all(job.done_at is not None for job in world.read(Job))

    assert eventually(at_rest, LIMIT_SECONDS), [job for job in world.read(Job) if not job.done_at]
    assert len(world.read(InboxEvent)) == len(over) == PAYMENTS
    assert {job.outcome for job in world.read(Job)} == {"done"}
    assert world.wallet(organization_id).balance_micros == PAYMENTS * 10_000_000
    entries = world.read(WalletEntry, organization_id=organization_id)
    assert sum(entry.amount_micros == 10_000_000 for entry in entries) == PAYMENTS

    # And no message was buried, and no process reported an error
    assert redis_client.keys(f"{NAMESPACE}:*.XQ*") == []
    for process in (ingress, *workers, *relays):
        assert "Traceback" not in process.output()
