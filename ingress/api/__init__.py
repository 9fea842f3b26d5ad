"""The JSON API for the company's backend: who asks is proved by a token, and told in problems."""
