"""Runloop's contract: what every program, agent and language binding agrees on.

Knows: names, formats, digests, capabilities, configuration, the wire. Does not know: how the daemon
keeps its promises (``runloopd``), what happened (``pog``), or what a run means (``openings``).
Kept free of imports so that ``import runloop`` costs nothing.
"""

__version__ = "0.1.0"
