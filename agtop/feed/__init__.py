"""Where facts come from and where wishes go: a daemon, a ledger on disk, or a list in memory."""
