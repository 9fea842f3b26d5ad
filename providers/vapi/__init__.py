"""Vapi: verifies its messages, reads them, reads calls, and ends calls."""
