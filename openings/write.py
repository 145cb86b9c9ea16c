"""An opening as text again: YAML and brace text that read back as the same definition.

Knows: both syntaxes, and how to leave out what is the default. Does not know: comments (a definition has
none), required ports and nested definitions (they are bound to a run, and no part of a text).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from openings.definition import Edge, Node, Opening, Param, Policy, Retry
from openings.durations import written
from openings.expressions import Compare, Condition

__all__ = ["to_brace", "to_yaml"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_. ()<>=]*[A-Za-z0-9_)]\Z|[A-Za-z]\Z")
_USE = re.compile(r"[a-z]+:[A-Za-z0-9._@+-]*[A-Za-z0-9]\Z")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_DEFAULT = Retry()
_GROWS = 2
"""What a wait that grows is multiplied by, if nothing else is said."""


def to_yaml(opening: Opening) -> str:
    """The opening as YAML."""
    return "".join(f"{line}\n" for line in _yaml(opening))


def to_brace(opening: Opening) -> str:
    """The opening as brace text."""
    return "".join(f"{line}\n" for line in _brace(opening))


# --- both -----------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    """A string of JSON that is one of YAML too: what YAML calls unprintable is escaped."""
    return _UNPRINTABLE.sub(
        lambda found: f"\\u{ord(found.group()):04x}", json.dumps(text, ensure_ascii=False)
    )


def _json(value: Any) -> str:
    """A value in flow style, on one line."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)}: {_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_json(item) for item in value) + "]"
    # As RFC 8785 writes it, and as it is read back: 2.0 is 2.
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _key(key: str) -> str:
    return key if _NAME.match(key) and key.lower() not in _WORDS else _quoted(key)


def _expression(condition: Condition) -> str:
    """A condition in the language's own words; its numbers have no exponent."""
    if not isinstance(condition, Compare):
        return str(condition)
    literal = condition.literal
    text = format(Decimal(repr(literal)), "f") if isinstance(literal, float) else _json(literal)
    return f"{condition.ref} {condition.op} {text}"


def _source(edge: Edge) -> str:
    return str(edge.source) if edge.guard is None else _expression(edge.guard)


def _usd(micro_usd: int | None) -> str | None:
    """Dollars, exactly."""
    if micro_usd is None:
        return None
    whole, parts = divmod(micro_usd, 1_000_000)
    return f"{whole}.{f'{parts:06d}'.rstrip('0'):0<2}"


# --- YAML -----------------------------------------------------------------------------------------


def _yaml(opening: Opening) -> Iterator[str]:
    yield "version: 0"
    yield f"name: {opening.name}"
    if opening.goals:
        yield "goals:"
        yield from (f"  - {_quoted(goal)}" for goal in opening.goals)
    if opening.params:
        yield "params:"
        yield from (f"  {_key(name)}: {_flow(_param(param))}" for name, param in opening.params.items())
    limits = {
        "budget_tokens": opening.policy.budget_tokens,
        "budget_usd": _usd(opening.policy.budget_micro_usd),
        "ask_micro_usd": opening.policy.ask_micro_usd,
        "timeout_ms": opening.policy.timeout_ms,
    }
    if any(value is not None for value in limits.values()):
        yield "policy:"
        yield from (f"  {key}: {value}" for key, value in limits.items() if value is not None)
    yield "nodes:"
    for node in opening.nodes:
        yield from _yaml_node(node)
    if opening.edges:
        yield "edges:"
        for edge in opening.edges:
            yield f"  - {{from: {_text(_source(edge))}, to: {edge.node}.{edge.port}}}"
    if opening.success is not None:
        yield "success:"
        yield f"  {opening.success.mode}:"
        yield from (f"    - {_text(_expression(clause))}" for clause in opening.success.clauses)
    if opening.save:
        yield f"artifacts: {{save: [{', '.join(map(str, opening.save))}]}}"


def _flow(parts: Iterable[tuple[str, str]]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts) + "}"


def _text(text: str) -> str:
    """Text as it is where YAML reads it as text, else in quotes."""
    return text if _PLAIN.match(text) else _quoted(text)


def _param(param: Param) -> Iterator[tuple[str, str]]:
    yield "type", param.type
    if param.default is not None:
        yield "default", _json(param.default)
    if param.required != (param.default is None):
        yield "required", _json(param.required)
    if param.description:
        yield "description", _quoted(param.description)


def _yaml_node(node: Node) -> Iterator[str]:
    yield f"  - id: {node.id}"
    yield f"    use: {node.use if _USE.match(node.use) else _quoted(node.use)}"
    for key, table in (("with", node.with_), ("schema_hints", node.schema_hints)):
        if table:
            yield f"    {key}: {_json(table)}"
    if node.for_each is not None:
        yield f"    for_each: {_json(node.for_each.to_json())}"
    if node.retry != _DEFAULT:
        yield f"    retry: {_flow(_yaml_retry(node.retry))}"
    if node.timeout_ms is not None:
        yield f"    timeout_ms: {node.timeout_ms}"
    if node.budget_tokens is not None:
        yield f"    budget_tokens: {node.budget_tokens}"
    if node.tags:
        yield f"    tags: {_json(node.tags)}"


def _yaml_retry(retry: Retry) -> Iterator[tuple[str, str]]:
    """``backoff_ms`` for a constant wait, ``initial_ms`` for one that grows; defaults are left out."""
    constant = retry.multiplier == 1
    yield "max_attempts", str(retry.max_attempts)
    if not constant or retry.initial_ms:
        yield "backoff_ms" if constant else "initial_ms", str(retry.initial_ms)
    if not constant and retry.multiplier != _GROWS:
        yield "multiplier", _json(retry.multiplier)
    if retry.max_ms != max(_DEFAULT.max_ms, retry.initial_ms):
        yield "max_ms", str(retry.max_ms)
    if retry.jitter != _DEFAULT.jitter:
        yield "jitter", _json(retry.jitter)


# --- braces ---------------------------------------------------------------------------------------


def _brace(opening: Opening) -> Iterator[str]:
    yield f"opening {opening.name} {{"
    for group in _groups(opening):
        yield from (f"  {line}" if line else "" for line in group)
    yield "}"


def _groups(opening: Opening) -> Iterator[list[str]]:
    """Lines that stand together, with an empty one between the groups."""
    groups = [
        [f"goal {_quoted(goal)};" for goal in opening.goals],
        [f"param {_brace_param(name, param)};" for name, param in opening.params.items()],
        _brace_policy(opening.policy),
        *(_brace_node(node) for node in opening.nodes),
        [f"{_source(edge)} -> {edge.node}.{edge.port};" for edge in opening.edges],
        _brace_success(opening),
        [f"save {', '.join(map(str, opening.save))};"] if opening.save else [],
    ]
    first = True
    for group in groups:
        if group:
            yield group if first else ["", *group]
            first = False


def _brace_param(name: str, param: Param) -> str:
    mark = ""
    if param.required != (param.default is None):
        mark = "!" if param.required else "?"
    default = "" if param.default is None else f" = {_json(param.default)}"
    told = f" {_quoted(param.description)}" if param.description else ""
    return f"{_key(name)}: {param.type}{mark}{default}{told}"


def _brace_policy(policy: Policy) -> list[str]:
    lines = []
    if policy.timeout_ms is not None:
        lines.append(f"timeout {written(policy.timeout_ms)}")
    if policy.budget_tokens is not None:
        lines.append(f"budget {policy.budget_tokens} tokens")
    if (usd := _usd(policy.budget_micro_usd)) is not None:
        lines.append(f"budget ${usd}")
    if (usd := _usd(policy.ask_micro_usd)) is not None:
        lines.append(f"ask ${usd}")
    return [f"policy {{ {'; '.join(lines)}; }}"] if lines else []


def _brace_node(node: Node) -> list[str]:
    lines = [f"with {_key(key)} = {_json(value)};" for key, value in node.with_.items()]
    lines += [f"hint {_key(key)} = {_json(value)};" for key, value in node.schema_hints.items()]
    if node.for_each is not None:
        plan = node.for_each
        fails = f", {plan.max_failed} may fail" if plan.max_failed else ""
        lines.append(f"for each {_key(plan.port)}, {plan.concurrency} at a time{fails};")
    if node.retry != _DEFAULT:
        lines.append(f"retry {_brace_retry(node.retry)};")
    if node.timeout_ms is not None:
        lines.append(f"timeout {written(node.timeout_ms)};")
    if node.budget_tokens is not None:
        lines.append(f"budget {node.budget_tokens} tokens;")
    if node.tags:
        lines.append(f"tags {', '.join(map(_quoted, node.tags))};")
    head = f"node {node.id} = {node.use}"
    return [f"{head} {{", *(f"  {line}" for line in lines), "}"] if lines else [f"{head};"]


def _brace_retry(retry: Retry) -> str:
    """``every`` for a constant wait, ``from`` for one that grows; what they take for granted is left out."""
    constant = retry.multiplier == 1
    words = [str(retry.max_attempts)]
    if not constant or retry.initial_ms:
        words.append(f"{'every' if constant else 'from'} {written(retry.initial_ms)}")
    if not constant and retry.multiplier != _GROWS:
        words.append(f"times {_json(retry.multiplier)}")
    if retry.max_ms != max(_DEFAULT.max_ms, retry.initial_ms):
        words.append(f"at most {written(retry.max_ms)}")
    if retry.jitter != _DEFAULT.jitter:
        words.append(f"jitter {_json(retry.jitter)}")
    return " ".join(words)


def _brace_success(opening: Opening) -> list[str]:
    if opening.success is None:
        return []
    mode = opening.success.mode.removesuffix("_of")
    clauses = [f"  {_expression(clause)};" for clause in opening.success.clauses]
    return [f"success {mode} {{", *clauses, "}"]
