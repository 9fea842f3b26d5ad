"""Foundations of every package: settings, ids, money, enums, outcomes and logs.

This package imports no other package of Holdfast. Every other package may import it.
"""
