"""Codes of calls: why one is refused, ended, or not charged."""

from __future__ import annotations

from base.problems.code import Code

# Requests about a call

CALL_NOT_FOUND = Code(
    "CALL_NOT_FOUND",
    404,
    "The organization has no call with this id.",
    "Use an id that Holdfast or the provider gave the call, and its organization's token.",
)
CALL_NOT_UNIQUE = Code(
    "CALL_NOT_UNIQUE",
    409,
    "Several calls have this id.",
    "Name one of the calls in the message, or add `--org`.",
)
CALL_IN_PROGRESS = Code(
    "CALL_IN_PROGRESS",
    409,
    "The provider reports that the call is in progress.",
    "Commit the call after it has ended.",
    money="No money moved. The call is still metered on its hold.",
)
CALL_SETTLED = Code(
    "CALL_SETTLED",
    409,
    "The cost of the call is already settled.",
    "Use a new call id for a new call. GET /api/calls/{id} shows the cost.",
    money="No more money moved. The first settlement remains.",
)
UNPAIRED_CALL = Code(
    "UNPAIRED_CALL",
    409,
    "The provider has reported a call that may be this reservation.",
    "Commit again with `vapiCallId`, or with `durationSeconds` 0 if the call was never made.",
    money="No money moved. A charge now could charge one call twice.",
)
FOREIGN_NUMBER = Code(
    "FOREIGN_NUMBER",
    409,
    "The call used a number or an assistant of another organization.",
    "Correct the number or the assistant in the integration.",
    money="The reservation's hold is released. The owner of the number pays for the call.",
)
INVALID_CALL = Code(
    "INVALID_CALL", 400, "The id of the call is malformed.", "Use an id of 1 to 64 characters."
)
INVALID_DURATION = Code(
    "INVALID_DURATION",
    400,
    "The duration is out of bounds.",
    "Reserve 1 s to 12 h, and commit 0 to 43,260 s.",
)

# Admission

NO_RATE = Code(
    "NO_RATE",
    409,
    "The organization has no rate for the number that the call uses.",
    "Set a rate for the route with `holdfast call rate set`.",
    money="Nothing is charged without a rate, so the call is refused or ended.",
)
NO_ASSISTANT = Code(
    "NO_ASSISTANT",
    409,
    "The entry point has no assistant that could talk.",
    "Give the entry point an assistant with `holdfast call entry-point add`.",
)
NO_CONTACT = Code(
    "NO_CONTACT",
    400,
    "The campaign's contact has no id.",
    "Give each contact of the campaign an id.",
)
UNKNOWN_ENTRY_POINT = Code(
    "UNKNOWN_ENTRY_POINT",
    404,
    "The number, assistant or campaign belongs to no single organization.",
    "Add it with `holdfast call entry-point add`, or remove all but one of its organizations.",
)
DECIDED_TOO_LATE = Code(
    "DECIDED_TOO_LATE",
    503,
    "The call was admitted after Vapi had stopped waiting.",
    "Nothing. If it happens often, look for slow PostgreSQL transactions.",
    money="No money moved. The hold is released.",
)

# Why a live call is ended

CALL_ENDED = Code(
    "CALL_ENDED",
    409,
    "The call has ended, or it is being ended.",
    "Stop asking about the call.",
    money="Nothing more is held. The call's actual duration is charged once.",
)
MAX_DURATION = Code(
    "MAX_DURATION",
    409,
    "The call has lasted longer than its maximum duration.",
    "Find out why the calling platform did not end it.",
    money="The call's actual duration is charged.",
)
OPERATOR = Code(
    "OPERATOR",
    409,
    "An operator has ended the call.",
    "Read the reason with `holdfast action list`.",
    money="The call's actual duration is charged.",
)
SETTLED = Code(
    "SETTLED",
    409,
    "The backend settled the call while it was in progress, so it was ended.",
    "Commit a call only after it has ended.",
    money="The duration that the backend committed is charged. Later talk time is not.",
)

# Setting up

INVALID_RATE = Code(
    "INVALID_RATE",
    400,
    "The rate, its increment or its route is out of bounds.",
    "Correct what the message names.",
    money="No money moved. The previous rate remains.",
)
INVALID_TERMS = Code(
    "INVALID_TERMS",
    400,
    "The terms contradict each other or are out of bounds.",
    "Correct what the message names.",
    money="No money moved. The previous terms remain.",
)
INVALID_ENTRY_POINT = Code(
    "INVALID_ENTRY_POINT",
    400,
    "The entry point is malformed, or another organization has it.",
    "Correct what the message names.",
    money="No money moved. The previous entry points remain.",
)
