"""Tests mirror the tree; they run on real PostgreSQL and Valkey."""
