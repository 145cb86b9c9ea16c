"""Stock of a small depot."""
