"""The composition root: the holdfast command, embedded servers and the supervisor of processes."""
