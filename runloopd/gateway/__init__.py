"""Outside faces of the daemon."""
