"""Guards that are taken out one by one: at each, a test must go red (attacks.md, row S2)."""
