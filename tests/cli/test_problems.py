"""The command line prints codes with their titles, and codes name real commands."""

from __future__ import annotations

import re

import pytest

from base.problems.registry import CODES
from base.problems.wallet import INSUFFICIENT_FUNDS
from cli.errors import describe_refusal

_COMMAND = re.compile(r"`holdfast ([a-z-]+(?: [a-z-]+)*)`")
COMMANDS = sorted({named for code in CODES.values() for named in _COMMAND.findall(code.action)})


def test_refusal_is_printed_with_its_title_and_detail():
    title = "INSUFFICIENT_FUNDS: The available money does not cover the amount"
    assert describe_refusal(INSUFFICIENT_FUNDS) == f"{title}."
    assert describe_refusal(INSUFFICIENT_FUNDS, "0.60 USD") == f"{title}: 0.60 USD"


@pytest.mark.parametrize("command", COMMANDS)
def test_command_that_a_code_recommends_exists(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert (code, f"{command} [OPTIONS]" in out) == (0, True)
