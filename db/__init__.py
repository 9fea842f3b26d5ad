"""Storage: transactions, models, locks, inbox, jobs, Redis, and the ledger's SQL.

This package contains no business rules. They are in domain/.
"""
