"""A bounded tool loop for agents that let a model decide: plan, act, observe, until there is an answer.

    from runloop.loop import Limits, Tool, pursue

    ended = pursue(host, "How many notes are there?", [Tool("notes.count", "Count notes.", {}, count)],
                   system="You answer from tools.", limits=Limits(hops=8))
    ended.text, ended.why        # what it says, and why it ended

Knows: turns of a model, calls of tools and what may be wrong with them, limits, how a conversation is kept
short. Does not know: what any tool does, who may (the gate decides every host call a tool makes), or people.
What a tool gives is data with a label of where it came from: nothing in it adds a tool, moves a limit or is
taken for the user's word. Served to agents as source, so it imports nothing but the standard library and
what agents have, and a part is compiled when somebody imports it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runloop.loop.conversation import Conversation
    from runloop.loop.fit import misfit
    from runloop.loop.granted import granted_tools
    from runloop.loop.limits import Limits, Spent
    from runloop.loop.pursuit import Ended, pursue
    from runloop.loop.toolbox import Seen, Tool, Toolbox
    from runloop.loop.trust import lowest

__all__ = [
    "Conversation",
    "Ended",
    "Limits",
    "Seen",
    "Spent",
    "Tool",
    "Toolbox",
    "granted_tools",
    "lowest",
    "misfit",
    "pursue",
]

_NAMES = {
    "conversation": "Conversation",
    "fit": "misfit",
    "granted": "granted_tools",
    "limits": "Limits Spent",
    "pursuit": "Ended pursue",
    "toolbox": "Seen Tool Toolbox",
    "trust": "lowest",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
