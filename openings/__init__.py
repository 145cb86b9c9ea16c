"""What it means: opening definitions and the pure engine. No I/O, no clock, no random."""
