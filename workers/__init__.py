"""What happens next: actors, the wrapper that runs them, the broker, and the relay.

Reads the clock and calls providers; the rules stand in domain/.
"""
