"""Twilio's lists: newest first, one page at a time.

A client that reads only the first page is therefore noticed.

Source: Twilio's page on paging. A page token names the last item of the previous page. A change
between two requests therefore neither hides nor repeats another item.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from sandbox.exchange import Answer, ApiRequest, Json, json_answer

_SIZE_DEFAULT = 50
_SIZE_MAX = 1000
_TOKEN_PREFIX = "PA"


def page(
    request: ApiRequest, name: str, items: list[Json], *, filters: Mapping[str, str]
) -> Answer:
    """Answer with one page of the items, which are given oldest first.

    `filters` maps a query parameter to the field that must equal its value.
    """
    wanted = {name: request.query[name] for name in filters if name in request.query}
    size, number = _size(request.query.get("PageSize", "")), _number(request.query.get("Page", ""))
    left = [
        item
        for item in _after(items, request.query.get("PageToken", ""))
        if all(item[filters[name]] == value for name, value in wanted.items())
    ]
    found, more = left[:size], len(left) > size

    def uri(of: int, **token: str) -> str:
        return f"{request.path}?{urlencode(wanted | {'PageSize': size, 'Page': of} | token)}"

    start = number * size
    body: Json = {
        name: found,
        "page": number,
        "page_size": size,
        "start": start,
        "end": start + max(0, len(found) - 1),
        "uri": uri(number),
        "first_page_uri": uri(0),
        "next_page_uri": (
            uri(number + 1, PageToken=_TOKEN_PREFIX + found[-1]["sid"]) if more else None
        ),
        "previous_page_uri": uri(number - 1) if number else None,
    }
    return json_answer(body)


def _after(items: list[Json], token: str) -> list[Json]:
    newest_first = items[::-1]
    sids = [item["sid"] for item in newest_first]
    sid = token.removeprefix(_TOKEN_PREFIX)
    return newest_first[sids.index(sid) + 1 :] if sid in sids else newest_first


def _size(text: str) -> int:
    return min(max(1, int(text)), _SIZE_MAX) if text.isdecimal() else _SIZE_DEFAULT


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
