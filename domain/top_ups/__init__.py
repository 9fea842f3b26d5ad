"""Automatic top-up: its rule, its decisions, its settings and its charges."""
