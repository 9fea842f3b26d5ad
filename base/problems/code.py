"""A code: the stable name of one fact, for which work is refused or ended."""

from __future__ import annotations


class Code(str):
    """A code with its HTTP status and its texts; equal to its name.

    `title` says what happened, `money` what it means for money, `action` what to do next.
    """

    status: int
    title: str  # type: ignore[assignment]  # in place of str.title
    action: str
    money: str

    def __new__(
        cls, name: str, status: int, title: str, action: str, *, money: str = "No money moved."
    ) -> Code:
        """Declare a code with all its parts."""
        code = super().__new__(cls, name)
        code.status, code.title, code.action, code.money = status, title, action, money
        return code

    @property
    def path(self) -> str:
        """The relative URL of its documentation, which is its type in RFC 9457."""
        return "/problems/" + self.lower().replace("_", "-")
