"""Recorded runs driven again in memory: under another policy, and with faults. Nothing is performed."""
