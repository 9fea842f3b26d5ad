"""One way of speaking HTTP to a provider: the client, its limits and its probe."""
