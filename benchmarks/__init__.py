"""Benchmarks: each measures against its baseline in the same run on the same server, in turn.

Started by `./run bench`; never a part of the tests. Absolute figures depend on the machine, ratios
much less.
"""
