"""Jobs in PostgreSQL: staged, claimed, finished, searched, redriven and dropped."""
