"""Codes of commands: records, jobs, searches and migrations."""

from __future__ import annotations

from base.problems.code import Code

_KEPT = "No money moved. The database is unchanged."

REASON_REQUIRED = Code(
    "REASON_REQUIRED",
    400,
    "An operator action needs a name and a reason.",
    "Give the reason with `--why`.",
)
INVALID_NOTE = Code(
    "INVALID_NOTE",
    400,
    "A note, name or reason is too long or cannot be stored.",
    "Shorten it, or remove NUL and broken characters.",
)
INVALID_NAME = Code(
    "INVALID_NAME", 400, "The name is empty or too long.", "Use a name of 1 to 200 characters."
)
INVALID_SUBACCOUNT = Code(
    "INVALID_SUBACCOUNT",
    409,
    "The SID is not a subaccount's, or another brand has it.",
    "Use the SID of a subaccount that no other brand has.",
)
BRAND_NOT_FOUND = Code(
    "BRAND_NOT_FOUND",
    404,
    "There is no brand with this id.",
    "Use an id that `holdfast org show` lists.",
)
CAMPAIGN_NOT_FOUND = Code(
    "CAMPAIGN_NOT_FOUND",
    404,
    "There is no campaign with this id.",
    "Use an id that `holdfast org show` lists.",
)
ALERT_NOT_FOUND = Code(
    "ALERT_NOT_FOUND",
    404,
    "There is no active alert with this id.",
    "Use an id that `holdfast alert list` shows.",
)
EVENT_NOT_FOUND = Code(
    "EVENT_NOT_FOUND",
    404,
    "The inbox has no event with this id.",
    "Have the provider send the event again.",
    money="What the event reported has not moved any money.",
)
JOB_ACT_IMPOSSIBLE = Code(
    "JOB_ACT_IMPOSSIBLE",
    409,
    "The job's state does not allow this operation.",
    "Read the job's state with `holdfast job show`.",
)
UNBOUNDED_SEARCH = Code(
    "UNBOUNDED_SEARCH",
    400,
    "The search would read all rows of a large table.",
    "Add an organization or a time.",
)
ROWS_WOULD_BE_LOST = Code(
    "ROWS_WOULD_BE_LOST",
    409,
    "Going back to the revision would lose rows.",
    "Make a backup, and repeat with `--destroy` to lose them.",
    money=_KEPT,
)
WRONG_DATABASE = Code(
    "WRONG_DATABASE",
    409,
    "`--destroy` names another database than the connected one.",
    "Name the connected database if its rows may be lost.",
    money=_KEPT,
)
ROWS_DO_NOT_FIT = Code(
    "ROWS_DO_NOT_FIT",
    409,
    "A row breaks a constraint of the older revision.",
    "Stop the newer version's processes, and change or remove the row.",
    money=_KEPT,
)
