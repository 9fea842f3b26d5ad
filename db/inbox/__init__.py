"""The inbox: verified webhooks, stored once, and deliveries that were refused."""
