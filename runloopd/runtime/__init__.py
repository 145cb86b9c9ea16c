"""Where guests run: never in this process."""
