"""Payments, refunds and disputes: what the provider's API reports moves money."""
