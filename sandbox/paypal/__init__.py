"""PayPal's stand-in."""
