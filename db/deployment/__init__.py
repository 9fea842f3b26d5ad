"""Check that a deployed database has everything that it must have."""
