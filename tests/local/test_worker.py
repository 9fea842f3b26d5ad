"""The worker of the demo and of fault runs: its arguments carry its waits."""

from __future__ import annotations

from base.enums import Queue
from local.worker import parse_arguments, worker_arguments
from workers.provider_waits import PRODUCTION_WAITS, ProviderWaits


def test_arguments_name_queues_threads_and_every_wait():
    waits = ProviderWaits(
        unsure_seconds=1.5, recheck_seconds=0.2, report_seconds=2, silent_seconds=12
    )
    arguments = worker_arguments(["safety", "billing"], 4, waits)
    assert parse_arguments(arguments) == ({Queue.SAFETY, Queue.BILLING}, 4, waits)


def test_production_reads_an_unsure_subaccount_again_while_it_is_unsure():
    assert PRODUCTION_WAITS.recheck_seconds < PRODUCTION_WAITS.unsure_seconds
