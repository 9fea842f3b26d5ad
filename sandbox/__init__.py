"""The four providers' stand-ins on loopback: one process, spoken to over HTTP, with its own keys.

It keeps state in memory and signs real webhooks. It must never be given a real provider's key and
never listens beyond 127.0.0.1. Every provider's folder has the same files: state.py is what the
provider remembers, api.py what it answers, events.py what it tells, control.py what we make it do.
"""
