"""Codes of payments, refunds, disputes, subscriptions and automatic top-up."""

from __future__ import annotations

from base.problems.code import Code

_UNSETTLED = "The provider has moved money that the ledger does not show yet."
_NO_CHARGE = "Nothing is charged."

# The provider's answer cannot be applied

UNKNOWN_ORGANIZATION = Code(
    "UNKNOWN_ORGANIZATION",
    409,
    "The payment or subscription names no organization that Holdfast knows.",
    "Find its organization at the provider, and correct it there or in Holdfast.",
    money="Money that arrived is not credited. A subscription allows no spending.",
)
NOT_A_TOP_UP = Code(
    "NOT_A_TOP_UP",
    409,
    "The payment is not a top-up, but a subscription's fee for example.",
    "Nothing.",
    money="It is not credited.",
)
PAYMENT_NOT_FOUND = Code(
    "PAYMENT_NOT_FOUND",
    404,
    "The refund or dispute is about a payment that is not known.",
    "Nothing if the payment was no top-up. Otherwise redrive the job after the payment's job.",
    money=_UNSETTLED,
)
PAYMENT_MISMATCH = Code(
    "PAYMENT_MISMATCH",
    409,
    "The payment does not fit the decision of automatic top-up.",
    "Compare provider, organization and currency of both.",
    money="The payment is not counted for this decision.",
)
NO_CAPTURE = Code(
    "NO_CAPTURE",
    502,
    "The provider's answer does not name the payment that it is about.",
    "Look the refund or dispute up at the provider, and correct the wallet.",
    money=_UNSETTLED,
)
NO_AMOUNT = Code(
    "NO_AMOUNT",
    502,
    "The provider states no amount in a currency.",
    "Decide the amount, and correct the wallet.",
    money="The dispute's amount is not debited. Its freeze stays.",
)
SEVERAL_PAYMENTS = Code(
    "SEVERAL_PAYMENTS",
    502,
    "The dispute is about several payments.",
    "Decide which part belongs to which payment, and correct the wallets.",
    money="The dispute's amount is not debited. Its freezes stay.",
)
UNKNOWN_MOVEMENT = Code(
    "UNKNOWN_MOVEMENT",
    502,
    "The provider lists a money movement that cannot be interpreted.",
    "Look the dispute up at the provider, and correct the wallet.",
    money=_UNSETTLED,
)
UNKNOWN_OUTCOME = Code(
    "UNKNOWN_OUTCOME",
    502,
    "The provider states an outcome of the dispute that is not known.",
    "Look the dispute up at the provider, and correct the wallet.",
    money=_UNSETTLED,
)
UNKNOWN_STATUS = Code(
    "UNKNOWN_STATUS",
    502,
    "The provider states a status that is not known.",
    "Look the object up at the provider. The job can be redriven after an update.",
    money="Nothing changed because of this answer.",
)
UNKNOWN_KIND = Code(
    "UNKNOWN_KIND",
    400,
    "The job is about neither a capture nor a refund.",
    "Correct the job's arguments.",
)

# Automatic top-up

CANNOT_CHARGE = Code(
    "CANNOT_CHARGE",
    409,
    "The provider cannot charge a stored payment method.",
    "Top up manually, or use another provider.",
    money=_NO_CHARGE,
)
TOP_UP_NOT_SET = Code(
    "TOP_UP_NOT_SET",
    404,
    "Automatic top-up was never switched on for the organization.",
    "Set its terms with `holdfast wallet auto-top-up`.",
    money=_NO_CHARGE,
)
DECISION_NOT_FOUND = Code(
    "DECISION_NOT_FOUND",
    404,
    "There is no decision of automatic top-up with this id.",
    "Use an id that `holdfast wallet auto-top-up` shows.",
    money=_NO_CHARGE,
)
DECISION_OUTDATED = Code(
    "DECISION_OUTDATED",
    409,
    "The decision of automatic top-up may no longer be charged.",
    "Nothing. The next crossing makes a new decision.",
    money=_NO_CHARGE,
)
DECISION_CHARGED = Code(
    "DECISION_CHARGED",
    409,
    "The decision of automatic top-up already has its payment.",
    "Nothing.",
    money="The payment is credited once. Nothing more is charged.",
)
