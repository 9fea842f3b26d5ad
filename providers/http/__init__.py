"""HTTP exchanges with providers: the client, its limits and its probe."""
