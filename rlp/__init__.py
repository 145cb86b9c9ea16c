"""The shell face of Runloop."""
