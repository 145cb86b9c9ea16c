"""Capabilities: what an agent may do (``policy``) and the proof it carries (``token``)."""
