"""PayPal: subscriptions, captures and refunds, and the messages it signs about them."""
