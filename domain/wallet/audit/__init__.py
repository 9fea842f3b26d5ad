"""Verify that the ledger still holds what was once written."""
