"""How a worker gets jobs: from Redis, or from PostgreSQL while Redis is away."""
