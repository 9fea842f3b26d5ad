"""HTTP below the routes: the protocol's bounds, the body and the responses."""
