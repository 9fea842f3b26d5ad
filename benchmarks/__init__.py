"""Benchmarks: each is measured against a baseline, in turn, on the same server.

`./run bench` starts them. They are never part of the tests. Absolute figures depend on the machine,
ratios much less.
"""
