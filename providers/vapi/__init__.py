"""Vapi: proves its messages, reads them, asks about calls and tells them to end."""
