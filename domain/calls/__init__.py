"""The life of a call, from admission to settlement.

admission admits inbound calls, reserving reserves outgoing ones, adoption takes over calls that did
not ask; pairing and merging join a reservation with the provider's call; ticks meters calls and
extends holds; words applies provider reports; endings ends calls; settlement charges them; watch
refreshes silent calls and releases expired holds.
"""
