"""What happened: the ledger, and views that can always be rebuilt from it."""
