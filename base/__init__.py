"""What every room shares: settings, ids, money, words, outcomes and logs.

Imports nothing of ours; every other package imports it.
"""
