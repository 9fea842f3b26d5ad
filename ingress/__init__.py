"""The ingress verifies, stores and answers; the workers act on what it stored."""
