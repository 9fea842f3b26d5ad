"""The ingress that the tests of the ingress use."""

from __future__ import annotations

from tests.ingress.conftest import ingress, start_ingress

__all__ = ["ingress", "start_ingress"]
