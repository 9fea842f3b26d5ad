"""What a deployed database must have, and how it is checked."""
