"""The mapped tables. Only the ledger's SQL functions write the ledger's tables.

Columns, checks and keys are defined in migrations/. A test compares the two.
"""

from __future__ import annotations

from db.models.alerts import Alert
from db.models.base import Base
from db.models.jobs import InboxEvent, Job, JobAttempt, OperatorAction, ProcessRow, ScheduleRow
from db.models.organizations import Brand, Campaign, Organization, Subscription
from db.models.payments import (
    PaymentDispute,
    PaymentRefund,
    PayPalCertificate,
    TopUpDecision,
    TopUpSettings,
)
from db.models.wallets import CallHold, Wallet, WalletEntry, WalletFreeze, WalletThreshold

__all__ = [
    "Alert",
    "Base",
    "Brand",
    "CallHold",
    "Campaign",
    "InboxEvent",
    "Job",
    "JobAttempt",
    "OperatorAction",
    "Organization",
    "PayPalCertificate",
    "PaymentDispute",
    "PaymentRefund",
    "ProcessRow",
    "ScheduleRow",
    "Subscription",
    "TopUpDecision",
    "TopUpSettings",
    "Wallet",
    "WalletEntry",
    "WalletFreeze",
    "WalletThreshold",
]
