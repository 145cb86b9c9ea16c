"""Random openings: every definition the language can declare, within small sizes."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import strategies as st

from openings.definition import Edge, ForEach, Node, Opening, Param, Policy, PortType, Retry, Success
from openings.expressions import Compare, Condition, Exists, Ref, json_type
from openings.keys import MAX_MS

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
ports = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
plain = texts.filter(lambda text: "{{" not in text)
integers = st.integers(-(2**53) + 1, 2**53 - 1)
floats = st.floats(-1e15, 1e15).map(lambda x: int(x) if x == int(x) else x)
scalars = st.one_of(st.none(), st.booleans(), integers, floats, plain)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=6,
)
durations = st.integers(1, MAX_MS) | st.sampled_from([1, 1000, 60_000, 3_600_000, 86_400_000])
literals = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.decimals(-1000, 1000, places=6).map(float).map(lambda x: int(x) if x == int(x) else x),
    texts,
)


@st.composite
def params(draw: st.DrawFn) -> Param:
    default = draw(values)
    kind = draw(st.sampled_from(["any", json_type(default)])) if default is not None else None
    kind = draw(st.sampled_from(["any", "string", "number", "object", "list"])) if kind is None else kind
    return Param(
        type=cast(PortType, kind),
        required=draw(st.booleans()),
        default=default,
        description=draw(texts),
    )


@st.composite
def retries(draw: st.DrawFn) -> Retry:
    return Retry(
        max_attempts=draw(st.integers(1, 100)),
        initial_ms=draw(st.integers(0, 200_000)),
        max_ms=draw(st.integers(0, 200_000) | st.just(60_000)),
        multiplier=draw(st.sampled_from([1, 2, 1.5]) | st.floats(1, 100)),
        jitter=draw(st.sampled_from([0.1, 0, 1]) | st.floats(0, 1)),
    )


uses = st.from_regex(
    r"agent:[a-z][a-z0-9_]{0,6}(@[A-Za-z0-9][A-Za-z0-9._+-]{0,6})?|opening:[a-z][a-z0-9_]{0,6}",
    fullmatch=True,
)


@st.composite
def nodes(draw: st.DrawFn, name: str) -> Node:
    return Node(
        id=name,
        use=draw(uses),
        with_=draw(st.dictionaries(plain, values, max_size=2)),
        schema_hints=draw(st.dictionaries(plain, values, max_size=1)),
        retry=draw(st.just(Retry()) | retries()),
        timeout_ms=draw(st.none() | durations),
        budget_tokens=draw(st.none() | st.integers(0, 2**53 - 1)),
        tags=tuple(draw(st.lists(texts, max_size=2))),
        for_each=draw(
            st.none()
            | st.builds(
                ForEach,
                port=texts.filter(bool),
                concurrency=st.integers(1, 256),
                max_failed=st.integers(0, 2**53 - 1),
            )
        ),
    )


@st.composite
def openings(draw: st.DrawFn) -> Opening:
    ids = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    refs = st.builds(
        lambda n, p: Ref(n, tuple(p)), st.sampled_from(ids), st.lists(ports, min_size=1, max_size=3)
    )
    whole = st.builds(lambda n, p: Ref(n, (p,)), st.sampled_from(ids), ports)
    ops = st.sampled_from(["==", "!=", ">=", "<=", ">", "<"])
    targets = {"node": st.sampled_from(ids), "port": ports}
    edges: Any = st.one_of(
        st.builds(Edge, source=whole, **targets),
        st.builds(Edge, source=refs, op=ops, literal=literals, **targets),
    )
    clauses: Any = st.builds(Exists, refs) | st.builds(Compare, refs, ops, literals)
    conditions: st.SearchStrategy[list[Condition]] = st.lists(clauses, min_size=1, max_size=3)
    return Opening(
        name=draw(names),
        goals=tuple(draw(st.lists(texts, max_size=2))),
        params=draw(st.dictionaries(names, params(), max_size=3)),
        policy=draw(
            st.builds(
                Policy,
                budget_tokens=st.none() | st.integers(0, 2**53 - 1),
                budget_micro_usd=st.none() | st.integers(0, 10**12),
                ask_micro_usd=st.none() | st.integers(0, 10**12),
                timeout_ms=st.none() | durations,
            )
        ),
        nodes=tuple(draw(nodes(name)) for name in ids),
        edges=tuple(draw(st.lists(edges, max_size=3, unique_by=str))),
        success=draw(
            st.none()
            | st.builds(Success, mode=st.sampled_from(["any_of", "all_of"]), clauses=conditions.map(tuple))
        ),
        save=tuple(draw(st.lists(whole, max_size=2))),
    )
