"""The gate and what it guards: every side effect goes through one door."""
