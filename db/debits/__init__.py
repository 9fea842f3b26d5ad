"""Single debits of many threads, combined into few commits."""
