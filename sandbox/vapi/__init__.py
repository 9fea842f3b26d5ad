"""Vapi's stand-in."""
