"""Stripe: amounts, in its own minor units."""
