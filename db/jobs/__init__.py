"""Jobs in PostgreSQL: stage, notify, claim, finish, search, redrive and prune."""
