"""HTTP exchanges with providers: the client, rate limits and circuit breakers, and probing."""
