"""One webhook's request as it came; Starlette's Request would do more than a webhook needs."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

#: A scope has this key once its request has come whole; see ingress.http.protocol.
WHOLE = "holdfast.whole"


class Delivery:
    """What is looked at of a request: its address, its headers, and its body once it is read."""

    __slots__ = ("_scope", "headers", "receive")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self.receive = receive
        pairs = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        plain = dict(pairs)
        #: By names in lower case. A name that came twice is there twice, for whoever proves it.
        self.headers: Mapping[str, str] = (
            plain if len(plain) == len(pairs) else Headers(raw=scope["headers"])
        )

    @property
    def is_whole(self) -> bool:
        """Whether the server has the whole body already, so that reading it waits for nobody."""
        return WHOLE in self._scope

    @property
    def path_and_query(self) -> str:
        """The path as it was asked for, with the query if there was one: what Twilio signs."""
        query = self._scope["query_string"].decode("latin-1")
        path: str = self._scope["path"]
        return f"{path}?{query}" if query else path
