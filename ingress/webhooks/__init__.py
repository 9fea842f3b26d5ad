"""One module a provider: each proves a message, names it, and hands it to the inbox."""
