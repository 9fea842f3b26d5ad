"""Codes of the wallet: entitlement, funds, ledger operations, holds and freezes."""

from __future__ import annotations

from base.problems.code import Code

# Why an organization may not spend

SUBSCRIPTION_INACTIVE = Code(
    "SUBSCRIPTION_INACTIVE",
    402,
    "The organization has no active subscription.",
    "Activate the subscription. Spending is allowed once the provider confirms it.",
    money="No money moved. The balance stays, and nothing can be spent.",
)
FROZEN_WALLET = Code(
    "FROZEN_WALLET",
    402,
    "The wallet is frozen.",
    "Settle the reason of each freeze. `holdfast wallet show` lists them.",
    money="No money moved. The balance stays, and nothing can be spent.",
)
INSUFFICIENT_FUNDS = Code(
    "INSUFFICIENT_FUNDS",
    402,
    "The available money does not cover the amount.",
    "Top up the wallet, or request less.",
)

# Operations of the ledger

ORGANIZATION_NOT_FOUND = Code(
    "ORGANIZATION_NOT_FOUND",
    404,
    "There is no organization with this id.",
    "Use an id that `holdfast org list` shows.",
)
WALLET_NOT_FOUND = Code(
    "WALLET_NOT_FOUND",
    404,
    "The organization has no wallet.",
    "Use an organization's id that `holdfast org list` shows.",
)
HOLD_NOT_FOUND = Code(
    "HOLD_NOT_FOUND", 404, "The call has no hold.", "Reserve credits for the call first."
)
IDEMPOTENCY_CONFLICT = Code(
    "IDEMPOTENCY_CONFLICT",
    409,
    "The same key or call was used before for a different request.",
    "Use a new key for a new operation, or repeat the first request unchanged.",
    money="No more money moved. The first request keeps its result.",
)
CURRENCY_MISMATCH = Code(
    "CURRENCY_MISMATCH",
    409,
    "Two currencies differ that must be the same.",
    "Use the wallet's currency. A person must decide about a payment in another one.",
)
DEBT_ABOVE_LIMIT = Code(
    "DEBT_ABOVE_LIMIT",
    409,
    "The wallet is further below zero than the new debt limit allows.",
    "Top up the wallet first, or set a higher debt limit.",
)
INVALID_AMOUNT = Code(
    "INVALID_AMOUNT",
    400,
    "The amount is malformed or out of bounds.",
    "Use an amount from 1 to 10^15 micros, with no more digits than the currency has.",
)
INVALID_KEY = Code(
    "INVALID_KEY",
    400,
    "The idempotency key is malformed.",
    "Use a key of 1 to 200 characters without NUL.",
)
RESERVED_KEY = Code(
    "RESERVED_KEY",
    400,
    "The idempotency key begins like the ledger's own keys.",
    "Use a key that does not begin with `call:`.",
)
INVALID_KIND = Code(
    "INVALID_KIND",
    400,
    "Entries of this kind are written only by their own operation.",
    "Credit with the kind `credit`, `topup`, `refund` or `give_back`.",
)
INVALID_EXPIRY = Code(
    "INVALID_EXPIRY",
    400,
    "The hold would expire in the past, or never.",
    "Use an expiry time in the future.",
)
INVALID_EXTENSION = Code(
    "INVALID_EXTENSION",
    400,
    "The number of the hold's extension is not positive.",
    "Count the extensions of a hold from 1.",
)
INVALID_CORRECTION = Code(
    "INVALID_CORRECTION",
    400,
    "The ledger accepts no correction without direction, operator and reason.",
    "Give the direction, the operator's name and the reason.",
)

# Freezes, thresholds and proofs

FREEZE_NOT_FOUND = Code(
    "FREEZE_NOT_FOUND",
    404,
    "The wallet has no active freeze with this reason.",
    "Use a reason that `holdfast wallet show` lists.",
)
FREEZE_FOLLOWS_SUBSCRIPTION = Code(
    "FREEZE_FOLLOWS_SUBSCRIPTION",
    409,
    "Only an active subscription lifts this freeze.",
    "Reactivate the subscription, or override the freeze until a given time.",
    money="No money moved. The wallet stays frozen.",
)
FREEZE_IS_MANUAL = Code(
    "FREEZE_IS_MANUAL",
    409,
    "A job may not place or lift a manual freeze.",
    "Use `holdfast wallet freeze` or `unfreeze`.",
    money="No money moved. The wallet's freezes are unchanged.",
)
UNKNOWN_REASON = Code(
    "UNKNOWN_REASON",
    400,
    "There is no freeze with this name.",
    "Correct the job that names the reason.",
    money="No money moved. The wallet's freezes are unchanged.",
)
INVALID_OVERRIDE = Code(
    "INVALID_OVERRIDE",
    400,
    "The override would end in the past or too late.",
    "Use an end within the limit that the message names.",
    money="No money moved. The freeze stays in force.",
)
TOO_MANY_THRESHOLDS = Code(
    "TOO_MANY_THRESHOLDS",
    400,
    "A wallet cannot have this many thresholds.",
    "Set fewer thresholds.",
)
HEADS_REFUSED = Code(
    "HEADS_REFUSED",
    409,
    "The file of chain heads cannot be trusted.",
    "Use an unchanged file of `verify anchor` and the key that signed it.",
    money="No money moved. The ledger was not compared with the file.",
)
