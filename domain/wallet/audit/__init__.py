"""Prove that the ledger is what was once written."""
