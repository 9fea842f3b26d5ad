"""Problem details for HTTP responses (RFC 9457), used only where HTTP is served."""

from __future__ import annotations

from dataclasses import dataclass

from base.problems.code import Code

#: The media type of RFC 9457, section 3.
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Problem:
    """The description of one error. It contains no secret."""

    code: Code
    detail: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return the members of RFC 9457 and `code`; `detail` only if it is given."""
        members: dict[str, object] = {
            "type": self.code.path,
            "title": self.code.title,
            "status": self.code.status,
            "code": str(self.code),
        }
        if self.detail:
            members["detail"] = self.detail
        return members
