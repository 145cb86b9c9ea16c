"""Runs: the engine fed with committed events, its commands carried out."""
