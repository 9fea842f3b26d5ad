"""One module per provider: each verifies a delivery and names its event."""
