"""Bundles: what an agent is installed from. Manifest, files and their digest; archives come later."""
