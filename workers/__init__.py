"""Runs jobs: the actors, the executor, the consumer, the meter and the relay.

This package reads the clock and calls providers. The rules are in domain/.
"""
