"""How a worker takes job notifications from Redis."""
