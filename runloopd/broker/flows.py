"""Whom what is private may be told: the sinks outside, and what agents of a run have heard (attacks.md P2).

Knows: whose a recorded answer is (:func:`whose`), where a call of a tool leads (:func:`sink_of`), the rule.
Does not know: how a call is refused or a person asked (``http_ops``, ``tool_ops``), or trust (``labels``).

The rule, in one line: *what somebody told in confidence goes back to him alone.* A tree of runs collects
whose words its agents have heard: :data:`OWN` for the user's contacts, mail, notes, files and memory,
``mcp:<server>`` for what a foreign server told, ``web:<host>`` for a page that took a secret or that lies in
this network. The collection only grows. A sink may be told something as long as nobody else's is among it;
the operator may mark sinks that are told anything (``security.private_ok``). A page that anybody can read is
nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from runloop.caps.destination import Destination, parse_destination
from runloop.caps.policy import Verdict
from runloop.errors import RunloopError
from runloopd.broker.labels import UNKNOWN, may_be_private

if TYPE_CHECKING:
    from runloopd.broker.tool_plan import Plan

__all__ = [
    "OWN",
    "Flows",
    "Heard",
    "honest",
    "named",
    "place_label",
    "refused",
    "sink_of",
    "spoken_by",
    "web_sink",
    "whose",
]

OWN = "user"
"""The user's own. It goes to no sink outside, unless that one is marked."""


class Heard(Protocol):
    """What a tree of runs has heard (``record.Tree``)."""

    @property
    def origins(self) -> set[str]:
        """Whose words: :data:`OWN` and names of sinks."""
        ...


class Flows:
    """The rule, with the operator's marks."""

    def __init__(self, private_ok: Iterable[str] = ()) -> None:
        """``private_ok``: ``host``, ``host:port`` or ``mcp:<server>``, each exactly."""
        self._marked = frozenset(
            word if word.startswith("mcp:") else f"web:{word.lower()}" for word in private_ok
        )

    def strangers(self, tree: Heard, sink: str | None) -> tuple[str, ...]:
        """Whose words the sink must not be told and might be, sorted; none where it leads nowhere outside."""
        if sink is None or sink in self._marked:
            return ()
        return tuple(sorted(tree.origins - {sink}))

    def guarded(self, tree: Heard, plan: Plan, args: Mapping[str, Any]) -> Plan:
        """The tool as it is for agents who heard this much: towards a stranger a person reads each call, and
        no yes for good stands for that."""
        if not self.strangers(tree, sink_of(plan, args)):
            return plan
        return replace(plan, confirm=True, grantable=False)


def web_sink(place: Destination) -> str:
    """The sink that a place in the web is."""
    return f"web:{place.authority}"


def sink_of(plan: Plan, args: Mapping[str, Any]) -> str | None:
    """Where what a call tells goes, if that is outside; None for what stays on this machine."""
    if plan.offer is not None and plan.offer.source == "mcp":
        return f"mcp:{_server(plan.offer.name)}" if plan.offer.leaves else None
    if plan.offer is not None:
        url = args.get("url")
        return _web(url) if isinstance(url, str) else None
    if plan.tool is not None and plan.tool.http is not None:
        try:
            return _web(plan.tool.http.fill(dict(args)))
        except RunloopError:
            return "web:?"  # it is judged, and refused for its arguments, in a moment
    # A program with a way out is asked about at each call; an agent's tool has host calls of its own.
    return "mcp:?" if plan.kind == "mcp" else None


def _web(url: str) -> str:
    try:
        return web_sink(parse_destination(url))
    except RunloopError:
        return "web:?"


def _server(name: str) -> str:
    return name.split(".")[1]


# --- whose an answer is ---------------------------------------------------------------------------


def place_label(place: Destination, *, confided: bool) -> str:
    """Trust label of a page; ``confided``: it took a secret to read it, or a way into this network."""
    return f"site:{place.authority}" if confided else f"web:{place.host}"


def spoken_by(plan: Plan, args: Mapping[str, Any]) -> str:
    """Label of what a tool says when it fails: its words are a stranger's as much as its results are."""
    if plan.offer is not None and plan.offer.source == "mcp":
        return f"mcp:{_server(plan.offer.name)}"
    sink = sink_of(plan, args)
    if sink is not None and sink.startswith("web:") and plan.effect != "write":
        return f"site:{sink[4:]}" if plan.secrets else sink
    return f"tool:{plan.name}"


def honest(plan: Plan, args: Mapping[str, Any], label: str | None) -> str | None:
    """The label of a result, apart from claims that only a tool of that very kind may make: a mail that came
    from the web once is the user's mail now."""
    speaker = spoken_by(plan, args)
    if speaker.startswith("mcp:"):
        return speaker
    kind = (label or "").partition(":")[0]
    if kind not in ("web", "site", "mcp") or {kind, speaker.partition(":")[0]} <= {"web", "site"}:
        return label
    return UNKNOWN if kind == "mcp" else f"tool:{plan.name}"


def whose(op: str, effect: str, label: str | None, called: str | None = None) -> str | None:
    """Whose an answer on record is; None for what anybody may hear.

    ``called``: resource of the ``tool.called`` that belongs to an effect. The label of an effect may be that
    of something else the run has heard, and is no evidence.
    """
    if not may_be_private(op):
        return None
    if op not in ("tool.call", "http.fetch"):
        return OWN  # what was kept may be made of more than its label says
    if op == "tool.call" and effect not in ("pure", "read"):
        return None if called is None else _of_resource(called)
    kind, _, rest = (label or "").partition(":")
    if kind == "web" or label is None:
        return None  # anybody's; or a refusal of our own
    if kind in ("mcp", "site") and rest:
        return f"mcp:{rest}" if kind == "mcp" else f"web:{rest}"
    return OWN


def _of_resource(resource: str) -> str:
    method, _, rest = resource.partition(" ")
    if method.startswith("mcp."):
        return f"mcp:{_server(method)}"
    if method.isupper() and rest.startswith(("http://", "https://")):
        # Its server alone: what follows may be cut where it is long, and has digests after it.
        return _web("/".join(rest.split(" ", 1)[0].split("/", 3)[:3]))
    return OWN


# --- words ----------------------------------------------------------------------------------------


def refused(agent: str, capability: str, sink: str, strangers: Iterable[str]) -> Verdict:
    """The refusal, with the why."""
    where = sink.removeprefix("web:")
    return Verdict(
        allowed=False,
        capability=capability,
        target=where,
        reason=f"{agent} has heard what is private ({named(strangers)}), and {where} is no place that may be"
        " told it",
        how_to_obtain=f"the operator may add {where!r} to security.private_ok in config.toml; or make it a"
        " tool: then a person reads each such call",
    )


def named(strangers: Iterable[str]) -> str:
    """Whose words, for people."""
    return ", ".join("the user's own" if one == OWN else f"what {one} told" for one in strangers)
