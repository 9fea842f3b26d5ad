"""Problem details for HTTP answers, by RFC 9457. Only edges that speak HTTP use them."""

from __future__ import annotations

from dataclasses import dataclass

#: The media type of RFC 9457, section 3.
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """One clear error: what is wrong, in words that show nothing secret."""

    status: int
    title: str
    detail: str = ""

    def to_dict(self) -> dict[str, object]:
        """This function will give the members that RFC 9457 names."""
        members: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            members["detail"] = self.detail
        return members
