"""A run in one file: its form, how it is made, how a stranger checks it. Whoever re-executes it is the
daemon."""
