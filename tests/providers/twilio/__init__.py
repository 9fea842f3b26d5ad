"""Tests of providers/twilio."""
