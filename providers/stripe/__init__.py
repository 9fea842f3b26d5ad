"""Stripe: converts amounts in Stripe's minor units."""
