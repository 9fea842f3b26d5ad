"""The provider APIs: signatures, events, amounts and calls of PayPal, Stripe, Twilio and Vapi.

This package translates a provider's messages and answers into `base.facts`, and its failures into
`base.outcomes`. It must not use the database, and it must not decide what follows from a fact.
Only this package imports a provider's SDK.
"""
