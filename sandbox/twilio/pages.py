"""Answers with one page of a list, newest item first.

As at Twilio, a client that reads only the first page misses items.

Source: Twilio's page on paging. A page token names the last item of the previous page. A change
between two requests therefore neither hides nor repeats another item.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from sandbox.exchange import Answer, ApiRequest, Json, json_answer

_PAGE_SIZE_DEFAULT = 50
_PAGE_SIZE_MAX = 1000
_TOKEN_PREFIX = "PA"


def page(
    request: ApiRequest, name: str, items: list[Json], *, filters: Mapping[str, str]
) -> Answer:
    """Answer with one page of the items, which are given oldest first.

    `filters` maps a query parameter to the field that must equal its value.
    """
    conditions = {name: request.query[name] for name in filters if name in request.query}
    size, number = (
        _page_size_from(request.query.get("PageSize", "")),
        _page_number_from(request.query.get("Page", "")),
    )
    matching = [
        item
        for item in _items_after(items, request.query.get("PageToken", ""))
        if all(item[filters[name]] == value for name, value in conditions.items())
    ]
    page_items, has_more = matching[:size], len(matching) > size

    def uri(page_number: int, **token: str) -> str:
        query = conditions | {"PageSize": size, "Page": page_number} | token
        return f"{request.path}?{urlencode(query)}"

    start = number * size
    body: Json = {
        name: page_items,
        "page": number,
        "page_size": size,
        "start": start,
        "end": start + max(0, len(page_items) - 1),
        "uri": uri(number),
        "first_page_uri": uri(0),
        "next_page_uri": (
            uri(number + 1, PageToken=_TOKEN_PREFIX + page_items[-1]["sid"]) if has_more else None
        ),
        "previous_page_uri": uri(number - 1) if number else None,
    }
    return json_answer(body)


def _items_after(items: list[Json], token: str) -> list[Json]:
    newest_first = items[::-1]
    sids = [item["sid"] for item in newest_first]
    sid = token.removeprefix(_TOKEN_PREFIX)
    return newest_first[sids.index(sid) + 1 :] if sid in sids else newest_first


def _page_size_from(text: str) -> int:
    return min(max(1, int(text)), _PAGE_SIZE_MAX) if text.isdecimal() else _PAGE_SIZE_DEFAULT


def _page_number_from(text: str) -> int:
    return int(text) if text.isdecimal() else 0
