"""PayPal: subscriptions, payments, disputes, and the webhooks that PayPal signs."""
