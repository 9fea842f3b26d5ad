"""Stand-ins for PayPal, Twilio, Stripe and Vapi: one process on loopback.

They speak HTTP, have their own keys, and sign real webhooks. They keep their state in memory and,
if requested, in a file. The process must never be given a real provider's key. It never listens
beyond 127.0.0.1.

Every provider's folder has the same files:

- state.py holds what the provider remembers.
- api.py answers API requests.
- events.py sends webhooks.
- control.py lets a test or an operator change the provider's state.
"""
