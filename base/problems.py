"""Problem details for HTTP responses (RFC 9457), used only where HTTP is served."""

from __future__ import annotations

from dataclasses import dataclass

#: The media type of RFC 9457, section 3.
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """The description of one error. It contains no secret."""

    status: int
    title: str
    detail: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the members that RFC 9457 defines; `detail` only if it is given."""
        members: dict[str, object] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            members["detail"] = self.detail
        return members
