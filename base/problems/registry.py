"""The registry: every code by its name, and the groups of docs/problems.md."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from base.problems import calls, operators, payments, providers, requests, wallet
from base.problems.code import Code


def _codes_of(module: ModuleType) -> tuple[Code, ...]:
    return tuple(value for value in vars(module).values() if isinstance(value, Code))


#: The codes of each group, in the order in which they are declared.
GROUPS: Mapping[str, tuple[Code, ...]] = {
    "Requests": _codes_of(requests),
    "Wallet": _codes_of(wallet),
    "Calls": _codes_of(calls),
    "Payments": _codes_of(payments),
    "Providers": _codes_of(providers),
    "Commands": _codes_of(operators),
}
CODES: Mapping[str, Code] = {str(code): code for group in GROUPS.values() for code in group}


def find_code(name: str) -> Code:
    """Return the code with this name, as the ledger's SQL returns it.

    Raises: KeyError if no code has the name.
    """
    return CODES[name]
