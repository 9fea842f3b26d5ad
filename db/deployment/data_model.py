"""Map the names of the founding documents to Holdfast's own.

The list covers tables, columns, functions, constraints and indexes. docs/data-model.md explains the
same list to readers. Tests compare that document with this module and with the migrations.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["table", "column", "function", "constraint", "index"]


class Counterpart(NamedTuple):
    """A name of the founding documents, and the database object that represents it.

    `there` is the name in the founding documents. `here` has the form of its `kind`: table,
    table.column, function, table.constraint or index.
    """

    there: str
    kind: Kind
    here: str


COUNTERPARTS: tuple[Counterpart, ...] = (
    # Wallets
    Counterpart("OrganizationWallet", "table", "wallets"),
    Counterpart("OrganizationWallet.organizationId", "column", "wallets.organization_id"),
    Counterpart("OrganizationWallet.balanceCents", "column", "wallets.balance_micros"),
    Counterpart("OrganizationWallet.isFrozen", "table", "wallet_freezes"),
    Counterpart("OrganizationWallet.isFrozen", "function", "wallet_is_frozen"),
    Counterpart("OrganizationWallet.updatedAt", "column", "wallets.updated_at"),
    Counterpart("debt limit", "column", "wallets.debt_limit_micros"),
    # Entries
    Counterpart("WalletTransaction", "table", "wallet_entries"),
    Counterpart("credit_transactions", "table", "wallet_entries"),
    Counterpart("WalletTransaction.id", "column", "wallet_entries.entry_no"),
    Counterpart("WalletTransaction.organizationId", "column", "wallet_entries.organization_id"),
    Counterpart("WalletTransaction.type", "column", "wallet_entries.direction"),
    Counterpart("WalletTransaction.type", "column", "wallet_entries.kind"),
    Counterpart("WalletTransaction.amountCents", "column", "wallet_entries.amount_micros"),
    Counterpart("WalletTransaction.referenceId", "column", "wallet_operations.key"),
    Counterpart("WalletTransaction.referenceId", "table", "payment_references"),
    Counterpart("WalletTransaction.createdAt", "column", "wallet_entries.created_at"),
    Counterpart("credit_transactions.idempotency_key", "column", "wallet_operations.key"),
    # Holds
    Counterpart("credit_reservations", "table", "call_holds"),
    Counterpart("credit_reservations.id", "constraint", "call_holds.call_holds_pkey"),
    Counterpart("credit_reservations.organization", "column", "call_holds.organization_id"),
    Counterpart("credit_reservations.call_id", "column", "call_holds.call_id"),
    Counterpart("credit_reservations.provider call id", "column", "call_holds.provider_call_id"),
    Counterpart("credit_reservations.reserved_pence", "column", "call_holds.reserved_micros"),
    Counterpart("credit_reservations.captured", "column", "call_holds.captured_micros"),
    Counterpart("credit_reservations.released", "column", "call_holds.released_micros"),
    Counterpart("credit_reservations.status", "column", "call_holds.status"),
    Counterpart("credit_reservations.expires_at", "column", "call_holds.expires_at"),
    Counterpart("credit_reservations.created_at", "column", "call_holds.created_at"),
    Counterpart("credit_reservations.settled_at", "column", "call_holds.settled_at"),
    # Organizations, subscriptions, brands, campaigns
    Counterpart("organizations", "table", "organizations"),
    Counterpart("OrganizationSubscription", "table", "subscriptions"),
    Counterpart("OrganizationSubscription.id", "column", "subscriptions.id"),
    Counterpart(
        "OrganizationSubscription.organizationId", "column", "subscriptions.organization_id"
    ),
    Counterpart("OrganizationSubscription.status", "column", "subscriptions.status"),
    Counterpart("OrganizationSubscription.planId", "column", "subscriptions.plan_external_id"),
    Counterpart("OrganizationSubscription.updatedAt", "column", "subscriptions.status_changed_at"),
    Counterpart("Brand", "table", "brands"),
    Counterpart("Brand.id", "column", "brands.id"),
    Counterpart("Brand.organizationId", "column", "brands.organization_id"),
    Counterpart("Brand.twilioSubaccountSid", "column", "brands.twilio_subaccount_sid"),
    Counterpart("Brand.updatedAt", "column", "brands.twilio_actual_at"),
    Counterpart("Campaign", "table", "campaigns"),
    Counterpart("Campaign.id", "column", "campaigns.id"),
    Counterpart("Campaign.brandId", "column", "campaigns.brand_id"),
    Counterpart("Campaign.status", "column", "campaigns.status"),
    Counterpart("Campaign.pausedReason", "column", "campaigns.pause_reason"),
    Counterpart("Campaign.updatedAt", "column", "campaigns.paused_at"),
    # Calls
    Counterpart("calls", "table", "calls"),
    Counterpart("calls.cost", "column", "calls.cost_micros"),
    Counterpart("calls.appointment_id", "column", "calls.appointment_id"),
    Counterpart("calls.vapi_call_id", "column", "calls.provider_call_id"),
    # Functions
    Counterpart(
        "check_balance_and_deduct_asset_cost()", "function", "check_balance_and_deduct_asset_cost"
    ),
    Counterpart("reserve_call_credits()", "function", "reserve_call_credits"),
    Counterpart("commit_reserved_credits()", "function", "commit_reserved_credits"),
    Counterpart("cleanup_expired_reservations()", "function", "cleanup_expired_reservations"),
    Counterpart("safeDebitWallet()", "function", "wallet_debit"),
    Counterpart("safeCreditWallet()", "function", "wallet_credit"),
    Counterpart("freezeWallet()", "function", "wallet_freeze"),
    Counterpart("unfreezeWallet()", "function", "wallet_unfreeze"),
    # Indexes and constraints
    Counterpart(
        "idx_credit_txn_idempotency", "constraint", "wallet_operations.wallet_operations_pkey"
    ),
    Counterpart(
        "UNIQUE(idempotency_key)", "constraint", "wallet_operations.wallet_operations_pkey"
    ),
    Counterpart("referenceId, once", "constraint", "payment_references.payment_references_pkey"),
    Counterpart("idx_credit_res_org_status", "index", "call_holds_open_of_organization"),
    Counterpart("idx_credit_res_expires", "index", "call_holds_open"),
    Counterpart("UNIQUE(call_id)", "constraint", "call_holds.call_holds_pkey"),
    Counterpart("idx_calls_cost", "index", "calls_cost"),
    Counterpart("idx_calls_appointment_id", "index", "calls_appointment"),
    Counterpart("idx_appointments_call_id", "index", "calls_id"),
    Counterpart("idx_appointments_vapi_call_id", "constraint", "calls.calls_provider_call"),
)
