"""The ledger against a model of it: random operations, in sequence and concurrent."""
