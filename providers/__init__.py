"""PayPal, Stripe, Twilio and Vapi: their signatures, events, amounts and APIs.

This package translates a provider's messages and answers into `base.facts`, and its failures into
`base.outcomes`. It must not use the database, and it must not decide what follows from a fact. Only
this package imports a provider's SDK.
"""
