"""What is remembered: transactions, models, locks, the inbox, jobs, and the ledger's SQL.

Holds no rules: what is allowed stands in domain/.
"""
