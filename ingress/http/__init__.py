"""HTTP below the routes: limits on requests, reading of bodies, and responses."""
