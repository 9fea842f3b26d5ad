"""Combine single debits of many threads into few commits."""
