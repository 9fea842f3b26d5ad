"""Calls, from being let in to being settled.

admission lets in what rings, by a door's organization, its terms and rates, and reserving what goes
out; ticks meters and extends; words takes in what providers say; endings ends; settlement charges;
watch asks where nobody has spoken.
"""
