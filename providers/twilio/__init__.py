"""Twilio: subaccounts, calls, and signed callbacks about messages and calls."""
