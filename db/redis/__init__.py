"""Redis: the client, job notifications, circuit breakers and rate limits."""
