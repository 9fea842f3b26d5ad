"""A webhook request, with only the parts that a webhook endpoint needs."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

#: Key of a scope whose request has arrived whole (set by ingress.http.protocol).
WHOLE = "holdfast.whole"


class Delivery:
    """A request's path, headers and body. The body is not read until it is needed."""

    __slots__ = ("_scope", "headers", "receive")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self.receive = receive
        pairs = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        plain = dict(pairs)
        #: By lower-case name. A repeated header stays repeated, so that verification sees each one.
        self.headers: Mapping[str, str] = (
            plain if len(plain) == len(pairs) else Headers(raw=scope["headers"])
        )

    @property
    def is_whole(self) -> bool:
        """Whether the server has the whole body, so that reading it does not wait."""
        return WHOLE in self._scope

    @property
    def path_and_query(self) -> str:
        """The path and query as requested. They are part of what Twilio signs."""
        query = self._scope["query_string"].decode("latin-1")
        path: str = self._scope["path"]
        return f"{path}?{query}" if query else path
