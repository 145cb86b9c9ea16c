"""The definition of an opening: what an author declared, normalised, frozen, with one canonical digest.

Knows: the shape and its JSON form. Does not know: how a definition is read from text (``load``), how
parameters are put into it (``template``), whether it makes sense together with the installed agents
(``validate``), or what happens in a run (``engine``).

Durations are integer milliseconds, money integer millionths of a US dollar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from openings.expressions import Compare, Condition, Exists, Ref
from runloop.digest import digest
from runloop.errors import UsageError

__all__ = [
    "Edge",
    "ForEach",
    "Node",
    "Opening",
    "Origin",
    "Param",
    "Place",
    "Policy",
    "PortSpec",
    "PortTable",
    "PortType",
    "Retry",
    "Success",
]

PortType = Literal["any", "string", "number", "boolean", "object", "list"]

Place = tuple[str | int, ...]
"""Path of a value in the source: ``("edges", 3, "from")``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PortSpec:
    """One port of an agent, from its manifest."""

    type: PortType = "any"
    required: bool = False
    """For an input: the agent cannot start without a value."""
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PortTable:
    """Every port of an agent."""

    in_: Mapping[str, PortSpec] = field(default_factory=dict)
    out: Mapping[str, PortSpec] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Param:
    """A parameter of the opening."""

    type: PortType = "any"
    required: bool = True
    """False when there is a default, or when null will do."""
    default: Any = None
    description: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "required": self.required,
            "default": self.default,
            "description": self.description,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """How often an attempt is made, and how long it is waited before the next."""

    max_attempts: int = 1
    initial_ms: int = 0
    max_ms: int = 60_000
    """Upper bound of a wait before jitter."""
    multiplier: float = 1.0
    jitter: float = 0.1
    """Largest part of the wait that is added to it: 0 to 1."""

    def to_json(self) -> dict[str, Any]:
        return {
            "max_attempts": self.max_attempts,
            "initial_ms": self.initial_ms,
            "max_ms": self.max_ms,
            "multiplier": _number(self.multiplier),
            "jitter": _number(self.jitter),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """Limits of the whole run."""

    budget_tokens: int | None = None
    budget_micro_usd: int | None = None
    timeout_ms: int | None = None
    """Wall clock of the whole opening, waiting for people included."""
    confirm_external: bool = True
    """Always true in a valid opening: it cannot be switched off from here."""
    ask_micro_usd: int | None = None
    """A person is asked before more than this is spent; it only brings the configuration's forward."""

    def to_json(self) -> dict[str, Any]:
        # Left out where nothing is said: definitions recorded before there was one keep their digest.
        asks = {} if self.ask_micro_usd is None else {"ask_micro_usd": self.ask_micro_usd}
        return {
            "budget_tokens": self.budget_tokens,
            "budget_micro_usd": self.budget_micro_usd,
            "timeout_ms": self.timeout_ms,
            "confirm_external": self.confirm_external,
            **asks,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class ForEach:
    """Serve a node once for each item of a list."""

    port: str
    """Input port that gets one item where a list arrives."""
    concurrency: int = 8
    """Items that are tried at a time."""
    max_failed: int = 0
    """Items that may fail without the node failing; their outputs are left out."""

    def to_json(self) -> dict[str, Any]:
        return {"port": self.port, "concurrency": self.concurrency, "max_failed": self.max_failed}


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One vertex."""

    id: str
    use: str
    """``agent:<name>[@variant|@version]`` or ``opening:<name>``."""
    with_: Mapping[str, Any] = field(default_factory=dict)
    schema_hints: Mapping[str, Any] = field(default_factory=dict)
    retry: Retry = field(default_factory=Retry)
    timeout_ms: int | None = None
    """Of one attempt; time spent waiting for a person does not count."""
    budget_tokens: int | None = None
    tags: tuple[str, ...] = ()
    requires: tuple[str, ...] | None = None
    """Input ports that must hold a value, from the manifest; None until bound: every connected port."""
    for_each: ForEach | None = None
    """None: the node is served once."""

    @property
    def nests(self) -> str | None:
        """Name of the opening it uses; None where an agent serves it."""
        kind, _, name = self.use.partition(":")
        return name if kind == "opening" else None

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "id": self.id,
            "use": self.use,
            "with": dict(self.with_),
            "schema_hints": dict(self.schema_hints),
            "retry": self.retry.to_json(),
            "timeout_ms": self.timeout_ms,
            "budget_tokens": self.budget_tokens,
            "tags": list(self.tags),
            "requires": None if self.requires is None else list(self.requires),
        }
        # Absent, not null: the digest of an opening without it is what it was before there was any.
        if self.for_each is not None:
            made["for_each"] = self.for_each.to_json()
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Edge:
    """Values of a port flow to a port; with an operator, the edge is a guard as well."""

    source: Ref
    node: str
    """Where it leads."""
    port: str
    op: str | None = None
    literal: Any = None

    @property
    def guard(self) -> Compare | None:
        """The comparison that must hold, if this edge is a guard."""
        return None if self.op is None else Compare(self.source, self.op, self.literal)

    def __str__(self) -> str:
        return f"{self.guard or self.source} -> {self.node}.{self.port}"

    def to_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {"from": _ref_json(self.source), "to": [self.node, self.port]}
        if self.op is not None:
            made |= {"op": self.op, "literal": self.literal}
        return made


@dataclass(frozen=True, kw_only=True, slots=True)
class Success:
    """When a run counts as succeeded."""

    mode: Literal["any_of", "all_of"] = "all_of"
    clauses: tuple[Condition, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {self.mode: [_condition_json(clause) for clause in self.clauses]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a definition was read, for messages only: no part of its identity."""

    file: str = "<opening>"
    places: Mapping[Place, tuple[int, int]] = field(default_factory=dict)
    """Path -> line and column, both from 1."""

    subjects: Mapping[str, Place] = field(default_factory=dict)
    """``node:<id>``, ``edge:<text>``, ``clause:<text>`` -> path."""

    def subject(self, kind: str, text: str) -> Place:
        """Path of a node, an edge or a success clause; empty when unknown."""
        return self.subjects.get(f"{kind}:{text}", ())

    def find(self, place: Place) -> tuple[int, int]:
        """Line and column of the value, or of the nearest thing around it; ``(0, 0)`` when unknown."""
        for length in range(len(place), -1, -1):
            if (found := self.places.get(place[:length])) is not None:
                return found
        return 0, 0


@dataclass(frozen=True, kw_only=True)
class Opening:
    """A declared graph of agents."""

    name: str
    goals: tuple[str, ...] = ()
    """What it is for; with ``{param}`` slots they are also what the router listens for."""
    params: Mapping[str, Param] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()
    success: Success | None = None
    save: tuple[Ref, ...] = ()
    """Ports kept as artifacts; of a nested opening, what it gives to the one around it."""
    openings: Mapping[str, Opening] = field(default_factory=dict)
    """Every opening that is nested in it at any depth, once bound: name -> definition, in order of the names.
    Those have none of their own."""
    origin: Origin = field(default_factory=Origin, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The normalised definition: what a run pins and what the digest is over."""
        made: dict[str, Any] = {
            "version": 0,
            "name": self.name,
            "goals": list(self.goals),
            "params": {name: param.to_json() for name, param in self.params.items()},
            "policy": self.policy.to_json(),
            "nodes": [node.to_json() for node in self.nodes],
            "edges": [edge.to_json() for edge in self.edges],
            "success": None if self.success is None else self.success.to_json(),
            "artifacts": {"save": [_ref_json(ref) for ref in self.save]},
        }
        if self.openings:
            made["openings"] = {name: self.openings[name].to_json() for name in sorted(self.openings)}
        return made

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Opening:
        """Inverse of :meth:`to_json`; raises :class:`UsageError` for anything else."""
        try:
            return _opening(value)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UsageError(
                f"not a normalised opening: {type(error).__name__} {error}",
                hint="use Opening.to_json of the same build",
                code="opening.shape",
            ) from error

    @cached_property
    def digest(self) -> str:
        """BLAKE3 of the canonical JSON."""
        return digest(self.to_json())

    def node(self, name: str) -> Node | None:
        """The node of that id."""
        return self._by_id.get(name)

    def inbound(self, node: str) -> tuple[Edge, ...]:
        """Edges into a node, in declared order."""
        return self._inbound.get(node, ())

    def outbound(self, node: str) -> tuple[Edge, ...]:
        """Edges out of a node, in declared order."""
        return self._outbound.get(node, ())

    @cached_property
    def _by_id(self) -> dict[str, Node]:
        return {node.id: node for node in self.nodes}

    @cached_property
    def _inbound(self) -> dict[str, tuple[Edge, ...]]:
        return _grouped(self.edges, lambda edge: edge.node)

    @cached_property
    def _outbound(self) -> dict[str, tuple[Edge, ...]]:
        return _grouped(self.edges, lambda edge: edge.source.node)

    def asked_of(self, node: str) -> tuple[str, ...]:
        """Ports of a node that an edge, a condition or an artifact names, in that order."""
        return self._asked.get(node, ())

    @cached_property
    def _asked(self) -> dict[str, tuple[str, ...]]:
        clauses = () if self.success is None else self.success.clauses
        refs = (*(edge.source for edge in self.edges), *(clause.ref for clause in clauses), *self.save)
        found: dict[str, dict[str, None]] = {}
        for ref in refs:
            found.setdefault(ref.node, {})[ref.path[0]] = None
        return {name: tuple(ports) for name, ports in found.items()}

    @cached_property
    def outputs(self) -> dict[str, Ref]:
        """What it gives to the opening around it: output port -> the port that is saved.

        A saved port gives its own name; those whose name is saved more than once are ``<node>_<port>``.
        """
        refs = tuple(dict.fromkeys(self.save))
        names = [ref.path[0] for ref in refs]
        return {
            ref.path[0] if names.count(ref.path[0]) == 1 else f"{ref.node}_{ref.path[0]}": ref for ref in refs
        }

    @cached_property
    def positions(self) -> dict[str, int]:
        """Id of a node -> its place in the declaration, from 0."""
        return {node.id: place for place, node in enumerate(self.nodes)}


def _grouped(edges: Iterable[Edge], by: Callable[[Edge], str]) -> dict[str, tuple[Edge, ...]]:
    found: dict[str, list[Edge]] = {}
    for edge in edges:
        found.setdefault(by(edge), []).append(edge)
    return {name: tuple(group) for name, group in found.items()}


# --- JSON -----------------------------------------------------------------------------------------


def _number(value: float) -> float | int:
    """RFC 8785 writes 2.0 as 2; read back it is an int. Say so at once."""
    return int(value) if value == int(value) else value


def _ref_json(ref: Ref) -> list[str]:
    return [ref.node, *ref.path]


def _condition_json(condition: Condition) -> dict[str, Any]:
    if isinstance(condition, Exists):
        return {"exists": _ref_json(condition.ref)}
    return {"ref": _ref_json(condition.ref), "op": condition.op, "literal": condition.literal}


def _ref(value: Any) -> Ref:
    node, *path = value
    if not path or not all(isinstance(name, str) for name in (node, *path)):
        raise ValueError("a reference is a list of a node and at least one name")
    return Ref(node, tuple(path))


def _condition(value: Mapping[str, Any]) -> Condition:
    if "exists" in value:
        return Exists(_ref(value["exists"]))
    return Compare(_ref(value["ref"]), value["op"], value["literal"])


def _success(value: Mapping[str, Any] | None) -> Success | None:
    if value is None:
        return None
    ((mode, clauses),) = value.items()
    if mode not in ("any_of", "all_of"):
        raise ValueError(f"unknown success mode {mode!r}")
    return Success(
        mode=cast(Literal["any_of", "all_of"], mode), clauses=tuple(_condition(clause) for clause in clauses)
    )


def _node(value: Mapping[str, Any]) -> Node:
    requires = value["requires"]
    return Node(
        id=value["id"],
        use=value["use"],
        with_=value["with"],
        schema_hints=value["schema_hints"],
        retry=Retry(**value["retry"]),
        timeout_ms=value["timeout_ms"],
        budget_tokens=value["budget_tokens"],
        tags=tuple(value["tags"]),
        requires=None if requires is None else tuple(requires),
        for_each=ForEach(**value["for_each"]) if "for_each" in value else None,
    )


def _edge(value: Mapping[str, Any]) -> Edge:
    node, port = value["to"]
    return Edge(
        source=_ref(value["from"]), node=node, port=port, op=value.get("op"), literal=value.get("literal")
    )


def _opening(value: Mapping[str, Any]) -> Opening:
    if value["version"] != 0:
        raise ValueError(f"version {value['version']!r} is not 0")
    nodes = tuple(_node(node) for node in value["nodes"])
    edges = tuple(_edge(edge) for edge in value["edges"])
    known = {node.id for node in nodes}
    if len(known) != len(nodes) or any({edge.source.node, edge.node} - known for edge in edges):
        raise ValueError("its edges and nodes do not fit each other")
    return Opening(
        name=value["name"],
        goals=tuple(value["goals"]),
        params={name: Param(**param) for name, param in value["params"].items()},
        policy=Policy(**value["policy"]),
        nodes=nodes,
        edges=edges,
        success=_success(value["success"]),
        save=tuple(_ref(ref) for ref in value["artifacts"]["save"]),
        openings={name: _opening(nested) for name, nested in sorted(value.get("openings", {}).items())},
    )
