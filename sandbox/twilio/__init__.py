"""Twilio's stand-in."""
