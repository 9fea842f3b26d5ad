"""The life of a call, from admission to settlement.

`admission` admits calls, `permission` permits campaigns to dial, and `reservations` reserves for
the company's outgoing calls. `adoption` takes over calls that began without any of the three.

`pairing` and `merging` join a reservation with the provider's call. `tick` meters calls and extends
their holds. `status_updates` applies provider reports. `ending` ends calls, and `settlement`
charges them. `reconcile` refreshes silent calls and releases expired holds. `billing` derives what
a call's money does now.
"""
