"""What the daemon can tell of itself while it works: measured when somebody asks."""
