"""The ledger against a model of it: random operations, in turn and at once, compared exactly."""
