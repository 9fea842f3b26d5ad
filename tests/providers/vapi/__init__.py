"""Tests of providers/vapi."""
