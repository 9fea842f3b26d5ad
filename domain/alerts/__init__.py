"""Alerts: conditions that a person must know about, from raised to cleared."""
