"""How each provider speaks: its signatures, its words, its amounts, its API.

This room decides what a provider's message or answer means in our words (base.facts), and which
of base.outcomes a failure is. It must never touch the database or decide what follows from a fact.
Only this room imports a provider's SDK.
"""
