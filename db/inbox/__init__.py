"""The inbox: verified webhooks, each stored once, and refused deliveries."""
