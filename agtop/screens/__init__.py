"""Screens that stand in front of the panes until they are answered or left."""
