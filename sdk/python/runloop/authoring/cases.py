"""``tests/cases.toml``: what goes into an agent, what the world answers, what must come out.

Knows: how cases are written, what is wrong with them, when an outcome is the expected one. Does not know: who
runs them (a fake host, the sandbox), or the languages of agents. Pure.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, cast

from runloop import toml
from runloop.authoring.findings import LintFinding
from runloop.errors import UsageError
from runloop.ops import OPS
from runloop.spelling import did_you_mean

__all__ = ["CASES_FILE", "MAX_CASES", "Case", "CasesError", "Outcome", "differences", "parse_cases"]

CASES_FILE = "tests/cases.toml"
MAX_CASES = 100
MAX_CASES_BYTES = 1024 * 1024

_KEYS = ("name", "op", "ports", "with", "tool", "args", "host", "expect")
_CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One case. Its JSON form is what harnesses of other languages and the daemon are given."""

    name: str
    line: int = 0
    """Where it begins in the file."""
    op: Literal["handle", "tool"] = "handle"
    ports: Mapping[str, list[Any]] = field(default_factory=dict)
    with_: Mapping[str, Any] = field(default_factory=dict)
    tool: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    host: Mapping[str, Any] = field(default_factory=dict)
    """Op -> its JSON answer, or ``{refuse = {code, message}}``."""
    expect: Mapping[str, Any] = field(default_factory=dict)
    """``{ports: {name: [value]}}`` or ``{error: code}``."""

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "op": self.op,
            "ports": dict(self.ports),
            "with": dict(self.with_),
            "tool": self.tool,
            "args": dict(self.args),
            "host": dict(self.host),
            "expect": dict(self.expect),
        }

    def guest_input(self, agent: str) -> dict[str, Any]:
        """What ``handle`` is called with."""
        context = {"agent": agent, "node": "test", "attempt": 1, "run": "test", "trace_id": "test"}
        last = {name: values[-1] for name, values in self.ports.items() if values}
        message = {"type": "intent.generic.v1", "payload": {**self.with_, **last}, "meta": {}}
        if self.op == "tool":
            asked = {"op": "tool", "tool": self.tool, "args": dict(self.args)}
            return {**asked, "context": context, "message": message}
        return {
            "op": "handle",
            "ports": dict(self.ports),
            "with": dict(self.with_),
            "context": context,
            "message": message,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one case ended, wherever it ran."""

    ok: bool
    ports: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    """Of the failure."""
    message: str = ""
    unscripted: tuple[str, ...] = ()
    """Ops that were called and that the case has no answer for."""


class CasesError(UsageError):
    """The file cannot be used. ``findings`` holds every mistake."""

    code: ClassVar[str] = "agent.cases"

    def __init__(self, findings: list[LintFinding]) -> None:
        self.findings = findings
        super().__init__(
            ". ".join(map(str, findings)),
            hint=f"correct {CASES_FILE}",
            findings=[finding.to_json() for finding in findings],
        )


# --- judging --------------------------------------------------------------------------------------


def differences(expect: Mapping[str, Any], outcome: Outcome) -> list[str]:
    """What is not as expected, in words; empty when the case passed.

    Objects may have more than is expected; lists must be as long; ``1`` and ``1.0`` are equal, ``1`` and
    ``true`` are not.
    """
    wrong = [f"it called {op}, which the case gives no answer for" for op in outcome.unscripted]
    if "error" in expect:
        if outcome.ok:
            return [*wrong, f"it succeeded; the failure {expect['error']!r} was expected"]
        if outcome.code != expect["error"]:
            wrong.append(f"it failed with {_failure(outcome)}; {expect['error']!r} was expected")
        return wrong
    if not outcome.ok:
        return [*wrong, f"it failed with {_failure(outcome)}"]
    return wrong + list(_compare(expect.get("ports", {}), dict(outcome.ports), "ports"))


def _failure(outcome: Outcome) -> str:
    return f"{outcome.code}: {outcome.message}" if outcome.message else outcome.code


def _compare(expected: Any, found: Any, place: str) -> Iterable[str]:
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key, value in expected.items():
            if key in found:
                yield from _compare(value, found[key], f"{place}.{key}")
            else:
                yield f"{place} has no {key!r}; it has {', '.join(map(str, found)) or 'nothing'}"
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{place} has {len(found)} items, not {len(expected)}: {_shown(found)}"
            return
        for number, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _compare(one, other, f"{place}[{number}]")
    elif not _equal(expected, found):
        yield f"{place} is {_shown(found)}, not {_shown(expected)}"


def _equal(expected: Any, found: Any) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return expected == found
    return type(expected) is type(found) and bool(expected == found)


def _shown(value: Any) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"


# --- reading --------------------------------------------------------------------------------------


def parse_cases(data: bytes, *, origin: str = CASES_FILE) -> list[Case]:
    """Read and validate; raises :class:`CasesError` with every finding."""
    try:
        if len(data) > MAX_CASES_BYTES:
            raise CasesError([_wrong(origin, 0, f"larger than {MAX_CASES_BYTES} bytes", "take cases out")])
        text = data.decode()
        top = toml.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        at = re.search(r"at line (\d+)", str(error))
        raise CasesError(
            [_wrong(origin, int(at[1]) if at else 0, f"not TOML: {error}", "see https://toml.io")]
        ) from error
    lines = [n for n, line in enumerate(text.splitlines(), 1) if re.match(r"\s*\[\[\s*case\s*\]\]", line)]
    findings = [_wrong(origin, 0, f"unknown key {key!r}", "write [[case]]") for key in top if key != "case"]
    given = top.get("case", [])
    if not isinstance(given, list) or not all(isinstance(case, dict) for case in given):
        raise CasesError([*findings, _wrong(origin, 0, "'case' is no list of tables", "write [[case]]")])
    if len(given) > MAX_CASES:
        findings.append(
            _wrong(origin, lines[-1] if lines else 0, f"more than {MAX_CASES} cases", "take some out")
        )
    cases, seen = [], set()
    for number, case in enumerate(given):
        line = lines[number] if len(lines) == len(given) else 0
        findings += [_wrong(origin, line, what, fix) for what, fix in _faults(case)]
        name = str(case.get("name", ""))
        if name in seen:
            findings.append(_wrong(origin, line, f"two cases are called {name!r}", "give each its own name"))
        seen.add(name)
        if not findings:
            cases.append(_case(case, line))
    if findings:
        raise CasesError(findings)
    return cases


def _wrong(origin: str, line: int, what: str, fix: str) -> LintFinding:
    return LintFinding(file=origin, line=line, what=what, fix=fix)


def _case(case: Mapping[str, Any], line: int) -> Case:
    return Case(
        name=case["name"],
        line=line,
        op=cast(Any, case.get("op", "handle")),
        ports=case.get("ports", {}),
        with_=case.get("with", {}),
        tool=case.get("tool", ""),
        args=case.get("args", {}),
        host=case.get("host", {}),
        expect=case["expect"],
    )


def _faults(case: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key in case:
        if key not in _KEYS:
            yield f"unknown key {key!r}", f"known keys: {', '.join(_KEYS)}"
    if not isinstance(case.get("name"), str) or not case.get("name"):
        yield "the case has no name", 'write name = "what it shows"'
    for key in ("ports", "with", "args", "host", "expect"):
        if not isinstance(case.get(key, {}), dict):
            yield f"{key!r} must be a table", f"write {key} = {{ … }}"
    if fault := next(
        (_no_json(case[key], key) for key in _KEYS if key in case and _no_json(case[key], key)), None
    ):
        yield fault, "write dates and times as text in quotes"
    op = case.get("op", "handle")
    if op not in ("handle", "tool"):
        yield f"'op' cannot be {op!r}", "write handle or tool"
    if op == "tool" and not isinstance(case.get("tool"), str):
        yield "a case of a tool names it", 'write tool = "family.verb"'
    if op == "handle" and ("tool" in case or "args" in case):
        yield "'tool' and 'args' belong to op = \"tool\"", 'write op = "tool"'
    yield from _lists(case.get("ports"), "ports")
    yield from _expectation(case.get("expect", {}))
    yield from _script(case.get("host"))


def _lists(ports: Any, where: str) -> Iterable[tuple[str, str]]:
    if isinstance(ports, dict):
        for name, values in ports.items():
            if not isinstance(values, list):
                yield f"{where}.{name} must be a list of values", f"write {name} = [ … ]"


def _expectation(expect: Any) -> Iterable[tuple[str, str]]:
    if not isinstance(expect, dict):
        return
    if len(expect) != 1 or not set(expect) <= {"ports", "error"}:
        yield (
            "'expect' says neither ports nor error, or both",
            'write expect = { ports = {…} } or { error = "code" }',
        )
    elif "error" in expect and not (isinstance(expect["error"], str) and _CODE.match(expect["error"])):
        yield (
            f"'expect.error' cannot be {expect['error']!r}",
            "write a failure's code, such as 'weather.city'",
        )
    elif "ports" in expect and not isinstance(expect["ports"], dict):
        yield "'expect.ports' must be a table", "write ports = { out = [ … ] }"
    else:
        yield from _lists(expect.get("ports"), "expect.ports")


def _script(host: Any) -> Iterable[tuple[str, str]]:
    if not isinstance(host, dict):
        return
    for op, answer in host.items():
        if op not in OPS:
            fix = did_you_mean(op, OPS)
            yield f"there is no host call {op!r}", f'{fix} (write it in quotes: "kb.search" = …)'
        elif isinstance(answer, dict) and "refuse" in answer:
            refusal = answer["refuse"]
            if (
                len(answer) != 1
                or not isinstance(refusal, dict)
                or not isinstance(refusal.get("code"), str)
                or not set(refusal) <= {"code", "message", "hint", "retryable"}
            ):
                yield (
                    f"the refusal of {op} has no code",
                    '{ refuse = { code = "cap.denied", message = "no" } }',
                )


def _no_json(value: Any, place: str) -> str | None:
    """Where a TOML value stands that JSON has no form for."""
    if isinstance(value, dict):
        return next((f for k, v in value.items() if (f := _no_json(v, f"{place}.{k}"))), None)
    if isinstance(value, list):
        return next((f for n, v in enumerate(value) if (f := _no_json(v, f"{place}[{n}]"))), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place} is no number that JSON has"
    return None if isinstance(value, (str, int, float, bool)) else f"{place} is a {type(value).__name__}"
