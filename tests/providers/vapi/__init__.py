"""Vapi: messages proved and read, calls asked about and ended."""
