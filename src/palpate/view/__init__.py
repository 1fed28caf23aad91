"""Browse a run: a read-only page on the loopback address, or the same as a static folder."""
