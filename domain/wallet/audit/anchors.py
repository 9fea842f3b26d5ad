"""Anchors: a signed file with the head of every wallet's hash chain.

A chain's head is its newest entry. The file and its signing key are kept outside the database. An
attacker with write access to a whole chain can also remove its last entries, and the remaining
entries stay consistent. Only a head that is kept elsewhere reveals the removal.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from base.outcomes import Refused
from base.problems.wallet import HEADS_REFUSED
from domain.wallet.audit.chain import Head

_FORMAT = "holdfast heads 1"
#: How the first line begins in every version of the format, and the form of the last line.
_FIRST_LINE_START = b'{"format":"holdfast heads '
_SIGNATURE_LINE = re.compile(rb'\{"hmac_sha256":"[0-9a-f]{64}"\}\n')


class HeadsRefused(Refused):
    """The file contains no heads signed with this key; the message explains why."""

    def __init__(self, detail: str) -> None:
        super().__init__(HEADS_REFUSED, detail)


def signed_heads(heads: Iterable[Head], now: datetime, key: str) -> Iterator[bytes]:
    """Write the heads as JSON lines; the last line is the HMAC of those before it."""
    header: dict[str, Any] = {"format": _FORMAT, "at": now.astimezone(UTC).isoformat()}
    head_records = (
        {"organization": head.organization_id, "entry_no": head.entry_no, "hash": head.hash.hex()}
        for head in heads
    )
    signature = hmac.new(key.encode(), digestmod="sha256")
    for record in chain([header], head_records):
        line = _json_line(record)
        signature.update(line)
        yield line
    yield _json_line({"hmac_sha256": signature.hexdigest()})


def read_heads(raw: bytes, key: str) -> dict[str, Head]:
    """Return the heads of a signed file by organization.

    Raises: HeadsRefused, with a message that explains what is wrong with the file.
    """
    lines = raw.splitlines(keepends=True)
    computed = hmac.new(key.encode(), b"".join(lines[:-1]), "sha256").hexdigest()
    # The last line is compared with the computed one, so that unsigned content is never parsed.
    if not lines or not hmac.compare_digest(lines[-1], _json_line({"hmac_sha256": computed})):
        raise HeadsRefused(_why_unsigned(raw))
    try:
        header, *head_records = (json.loads(line) for line in lines[:-1])
        if header["format"] != _FORMAT:
            raise HeadsRefused(f"the file's format is {header['format']!r}, not {_FORMAT!r}")
        heads = [
            Head(record["organization"], record["entry_no"], bytes.fromhex(record["hash"]))
            for record in head_records
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise HeadsRefused(
            f"the signature is valid, but a line is not a chain head ({error})"
        ) from None
    return {head.organization_id: head for head in heads}


def _why_unsigned(raw: bytes) -> str:
    """Explain from its first and last line alone why a file has no valid signature."""
    if not raw:
        return "the file is empty"
    if not raw.startswith(_FIRST_LINE_START):
        return "this is not a file of `verify anchor`: its first line is different"
    if not _SIGNATURE_LINE.fullmatch(raw.splitlines(keepends=True)[-1]):
        return "the end of the file is missing or changed: its last line is not a signature"
    return "the file was signed with another key, or changed since"


def _json_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
