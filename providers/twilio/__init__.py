"""Twilio: subaccounts, and the signed callbacks about messages and calls."""
