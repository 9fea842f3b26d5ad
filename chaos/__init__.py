"""Chaos: the whole house under steady traffic while everything is broken on purpose, then counted.

Started by `./run chaos`. Nothing imports it, and it changes nothing in what production runs: it
kills, cuts and freezes from outside, and its sabotages live here and in the run's own database.
"""
