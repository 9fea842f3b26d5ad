"""The ledger behaves like its model, for sequential and concurrent operations."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.at_once import AtOnce
from tests.model.in_turn import InTurn

#: Number of sequences in an ordinary run, the same every time: sequential and concurrent.
IN_TURN, AT_ONCE = 100, 50
#: Seconds after which a long run is considered to hang.
_HANGS = 6 * 3600


def _sequences(config: pytest.Config, usual: int) -> settings:
    """Return how many sequences run, and whether they are new: see --model-sequences."""
    asked = config.getoption("--model-sequences")
    return settings(
        max_examples=asked or usual,
        derandomize=asked is None,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.timeout(_HANGS)
def test_sequence_of_operations_agrees_with_the_model(product, committed, pytestconfig):
    sequences = _sequences(pytestconfig, IN_TURN)

    run_state_machine_as_test(
        partial(InTurn, product, committed), settings=settings(sequences, stateful_step_count=20)
    )


@pytest.mark.timeout(_HANGS)
def test_concurrent_operations_agree_with_some_order_in_the_model(product, committed, pytestconfig):
    sequences = _sequences(pytestconfig, AT_ONCE)

    # Threads cannot be shrunk: a failure may not happen again.
    run_state_machine_as_test(
        partial(AtOnce, product, committed),
        settings=settings(sequences, stateful_step_count=6, phases=[Phase.generate]),
    )
