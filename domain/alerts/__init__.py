"""Alerts: what a person has to know, from raised to cleared."""
