"""The brace text of an opening as plain data with the place of every value: the same data as from YAML.

Knows: the statements of the grammar in ``docs/reference/openings.md``, and how to go on after one that is not
understood. Does not know: what the keys mean and which values they take (``keys``, ``edges``): both syntaxes
are judged by the same code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from openings.definition import Place
from openings.expressions import json_type
from openings.scan import Scanner, Unreadable
from openings.source import MAX_BYTES, MAX_FINDINGS, Desk
from runloop.spelling import nearest

__all__ = ["BODY", "LIMITS", "SUFFIX", "TOP", "compose", "is_brace"]

SUFFIX = ".opening"

_BEGINS = re.compile(r"\ufeff?(?:[ \t\r\n]++|#[^\n]*+)*+opening(?![A-Za-z0-9_]|[ \t]*:)")
TOP = ("version", "goal", "param", "policy", "node", "success", "save")
BODY = ("with", "hint", "for", "retry", "timeout", "budget", "tags")
LIMITS = ("timeout", "budget", "ask", "confirm")
_STARTS = re.compile(rf"(?:{'|'.join((*TOP, *BODY, 'confirm'))})\b|[A-Za-z_]\w*\s*\.\s*[A-Za-z_]")
_HEAD = re.compile(r"[A-Za-z_]\w*")
_DOT = re.compile(r"[A-Za-z_]\w*(?:[ \t\r\n]++|#[^\n]*+)*+\.")

Handler = Callable[[int], bool]
"""Reads a statement that begins there, its first word taken; True when it ended in a block."""


def is_brace(source: str, name: str = "") -> bool:
    """Whether a text is to be read as brace text: by the suffix of its file, or by how it begins."""
    return name.endswith(SUFFIX) or _BEGINS.match(source) is not None


def compose(source: str, desk: Desk) -> dict[str, Any] | None:
    """The text as plain data, with places noted. None, and a finding, when there is nothing to work with."""
    if len(source.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        why = f"an opening has at most {MAX_BYTES} bytes"
        desk.at(1, 1, "size", "the text is too large", why, "make it smaller")
        return None
    return _Reader(source.removeprefix("\ufeff"), desk).opening()


class _Reader:
    """One reading."""

    def __init__(self, source: str, desk: Desk) -> None:
        self.text, self.desk = Scanner(source, desk), desk
        self.tree: dict[str, Any] = {"version": 0}

    # --- statements -------------------------------------------------------------------------------

    def opening(self) -> dict[str, Any] | None:
        text = self.text
        if text.ended:
            self.desk.at(
                1, 1, "empty", "there is nothing in it", "an opening has a name and nodes", "write one"
            )
            return None
        try:
            start = text.blank()
            self.desk.places[()] = text.place(start)
            if not text.keyword("opening"):
                raise text.refuse("'opening'", "begin with 'opening <name> {'")
            at = text.blank()
            self._put(self.tree, (), "name", text.chunk("a name", "write 'opening <name> {'"), at)
            text.need("{", "write 'opening <name> {'")
        except Unreadable as error:
            self._say(error)
            return None
        handlers: dict[str, Handler] = {
            "version": self._version,
            "goal": self._goal,
            "param": self._param,
            "policy": self._policy,
            "node": self._node,
            "success": self._success,
            "save": self._save,
        }
        self._statements("the opening", handlers, self._edge)
        if not text.ended:
            what = "there is something after the end of the opening"
            at = text.offset
            self.desk.at(
                *text.place(at), "syntax", what, "a file holds one opening", "remove it, or a '}' above"
            )
        return self.tree

    def _statements(self, what: str, handlers: Mapping[str, Handler], edge: Handler | None = None) -> None:
        """Statements up to the closing brace; one that is not understood hides none of the others."""
        text = self.text
        while len(self.desk.findings) < MAX_FINDINGS:
            start = text.blank()
            if text.ended:
                self._say(Unreadable(start, "the text ends too early", f"{what} is not closed", "add a '}'"))
                return
            if text.sign("}"):
                return
            if text.sign(";"):
                continue
            if edge is None and self._is_outside(start, handlers):
                self._say(text.refuse(f"the '}}' of {what}", "add a '}' before it"))
                return
            try:
                block = self._handler(what, handlers, edge)(start)
                if not text.sign(";") and not block and not text.sees("}"):
                    raise text.refuse("';'", "end the statement before it with ';'")
            except Unreadable as error:
                self._say(error)
                if edge is not None and _DOT.match(text.source, start):
                    self.desk.lost_edges.append(None)
                text.recover(start, _STARTS)

    def _is_outside(self, start: int, handlers: Mapping[str, Handler]) -> bool:
        """Whether a statement belongs to what is around: a brace was forgotten."""
        word = _HEAD.match(self.text.source, start)
        if _DOT.match(self.text.source, start):
            return "->" in self.text.source[start:].split(";", 1)[0]
        return word is not None and word.group() in TOP and word.group() not in handlers

    def _handler(self, what: str, handlers: Mapping[str, Handler], edge: Handler | None) -> Handler:
        text, start = self.text, self.text.blank()
        if edge is not None and _DOT.match(text.source, start):
            return edge
        word = _HEAD.match(text.source, start)
        if word is None:
            raise text.refuse(f"a statement of {what}", f"write one of: {', '.join(handlers)}")
        handler = handlers.get(word.group())
        if handler is None:
            close = nearest(word.group(), handlers, cutoff=0.5)
            known = ", ".join(handlers) + (", or an edge: node.port -> node.port" if edge else "")
            raise Unreadable(
                start,
                f"unknown word '{word.group()[:64]}' in {what}",
                "no statement begins with it",
                f"did you mean '{close}'?" if close else f"use one of: {known}",
            )
        text.offset = word.end()
        return handler

    def _say(self, error: Unreadable) -> None:
        place = self.text.place(error.offset)
        self.desk.at(*place, error.code, error.what, error.why, error.fix)

    def _put(self, table: dict[str, Any], place: Place, key: str, value: Any, at: int) -> None:
        """Note a value; the second of a kind is refused."""
        line, column = self.text.place(at)
        if key in table:
            first = self.desk.keys.get((*place, key), (0, 0))[0]
            what = f"'{key}' is said twice"
            self.desk.at(line, column, "duplicate", what, f"it is also in line {first}", "remove one")
            return
        table[key] = value
        self.desk.keys[(*place, key)] = (line, column)
        self.desk.places.setdefault((*place, key), (line, column))

    def _add(self, key: str, value: Any, at: int) -> Place:
        """Append to a list of the opening; where it is now."""
        items: list[Any] = self.tree.setdefault(key, [])
        self.desk.places.setdefault((key,), self.text.place(at))
        place: Place = (key, len(items))
        self.desk.places[place] = self.text.place(at)
        items.append(value)
        return place

    # --- of the opening ---------------------------------------------------------------------------

    def _version(self, start: int) -> bool:
        del self.tree["version"]
        self._put(self.tree, (), "version", self.text.number(), start)
        return False

    def _goal(self, start: int) -> bool:
        at = self.text.blank()
        self._add("goals", self.text.string(), at)
        return False

    def _param(self, start: int) -> bool:
        """``param name[: type[?|!]] [= value] ["description"]``."""
        text = self.text
        at = text.blank()
        name = text.key("a name of a parameter")
        place: Place = ("params", name)
        made: dict[str, Any] = {}
        if text.sign(":"):
            type_at = text.blank()
            self._put(made, place, "type", text.word("a type", "write string, number, …, or any"), type_at)
            if (mark := "?" if text.sign("?") else "!" if text.sign("!") else "") != "":
                made["required"] = mark == "!"
        if text.sign("="):
            made["default"] = text.value((*place, "default"))
            if "type" not in made and made["default"] is not None:
                made["type"] = json_type(made["default"])
        if text.sees('"'):
            made["description"] = text.string()
        self._put(self.tree.setdefault("params", {}), ("params",), name, made, at)
        return False

    def _policy(self, start: int) -> bool:
        text, made = self.text, dict[str, Any]()
        place: Place = ("policy",)

        def timeout(at: int) -> bool:
            self._put(made, place, "timeout_ms", text.duration(), at)
            return False

        def budget(at: int) -> bool:
            usd = text.money()
            if usd is None:
                self._put(made, place, "budget_tokens", self._tokens(), at)
            else:
                self._put(made, place, "budget_usd", usd, at)
            return False

        def ask(at: int) -> bool:
            usd = text.money()
            if usd is None:
                raise text.refuse("an amount of money", "write 'ask $0.50': from there on a person is asked")
            self._put(made, place, "ask_micro_usd", round(usd * 1_000_000), at)
            return False

        def confirm(at: int) -> bool:
            if not text.keyword("external"):
                raise text.refuse("'external'", "write 'confirm external', or nothing: it is the rule")
            self._put(made, place, "confirm_external", True, at)
            return False

        text.need("{", "write 'policy { … }'")
        self._put(self.tree, (), "policy", made, start)
        self._statements("the policy", {"timeout": timeout, "budget": budget, "ask": ask, "confirm": confirm})
        return True

    def _tokens(self) -> int | float:
        found = self.text.number("a number of tokens, or money as in $0.50")
        if not self.text.keyword("tokens"):
            raise self.text.refuse("'tokens'", "write 'budget 4000 tokens'")
        return found

    def _edge(self, start: int) -> bool:
        text = self.text
        source, at = text.expression(("->", ";"))
        place: Place = ("edges", len(self.tree.get("edges", [])))
        text.need("->", "write '<node>.<port> -> <node>.<port>'")
        target, to = text.expression((";",))
        self._add("edges", {"from": source, "to": target}, start)
        self.desk.places[(*place, "from")] = text.place(at)
        self.desk.places[(*place, "to")] = text.place(to)
        return False

    def _success(self, start: int) -> bool:
        text = self.text
        mode = "any_of" if text.keyword("any") else "all_of" if text.keyword("all") else None
        if mode is None:
            raise text.refuse("'any' or 'all'", "write 'success any { … }'")
        clauses: list[str] = []
        self._put(self.tree, (), "success", {mode: clauses}, start)
        self.desk.places[("success", mode)] = text.place(start)
        text.need("{", "write 'success any { … }'")
        while not text.sign("}"):
            if text.sign(";"):
                continue
            clause, at = text.expression((";",))
            self.desk.places[("success", mode, len(clauses))] = text.place(at)
            clauses.append(clause)
            if text.ended or text.sees("{"):
                raise text.refuse("'}'", "close 'success' with a '}'")
        return True

    def _save(self, start: int) -> bool:
        artifacts = self.tree.setdefault("artifacts", {"save": []})
        while True:
            ref, at = self.text.expression((",", ";"))
            self.desk.places[("artifacts", "save", len(artifacts["save"]))] = self.text.place(at)
            artifacts["save"].append(ref)
            if not self.text.sign(","):
                return False

    # --- of a node --------------------------------------------------------------------------------

    def _node(self, start: int) -> bool:
        """``node id = use { … }``, or without a body."""
        text = self.text
        at = text.blank()
        id_ = text.chunk("an id", "write 'node <id> = agent:<name>'")
        text.need("=", "write 'node <id> = agent:<name>'")
        made: dict[str, Any] = {}
        place = self._add("nodes", made, start)
        self._put(made, place, "id", id_, at)
        at = text.blank()
        self._put(made, place, "use", text.chunk("who serves it", "write 'agent:<name>'"), at)
        if not text.sign("{"):
            return False
        self._statements(
            "the node",
            {
                "with": lambda at: self._pair(made, place, "with", at),
                "hint": lambda at: self._pair(made, place, "schema_hints", at),
                "for": lambda at: self._for_each(made, place, at),
                "retry": lambda at: self._retry(made, place, at),
                "timeout": lambda at: self._set(made, place, "timeout_ms", text.duration(), at),
                "budget": lambda at: self._set(made, place, "budget_tokens", self._tokens(), at),
                "tags": lambda at: self._tags(made, place, at),
            },
        )
        return True

    def _set(self, made: dict[str, Any], place: Place, key: str, value: Any, at: int) -> bool:
        self._put(made, place, key, value, at)
        return False

    def _pair(self, made: dict[str, Any], place: Place, what: str, at: int) -> bool:
        table: dict[str, Any] = made.setdefault(what, {})
        self.desk.places.setdefault((*place, what), self.text.place(at))
        key = self.text.key("a key")
        self.text.need("=", "write 'with <key> = <value>'")
        known = key in table
        value = self.text.value((*place, what, key) if not known else (*place, what, key, "again"))
        self._put(table, (*place, what), key, value, at)
        return False

    def _for_each(self, made: dict[str, Any], place: Place, at: int) -> bool:
        """``for each port[, N at a time][, N may fail]``."""
        text = self.text
        if not text.keyword("each"):
            raise text.refuse("'each'", "write 'for each <port>'")
        given: dict[str, Any] = {}
        inside: Place = (*place, "for_each")
        self._put(given, inside, "port", text.key("an input"), text.blank())
        while text.sign(","):
            number_at = text.blank()
            count = text.number("a number of items")
            if text.keyword("at", "a", "time"):
                self._put(given, inside, "concurrency", count, number_at)
            elif text.keyword("may", "fail"):
                self._put(given, inside, "max_failed", count, number_at)
            else:
                raise text.refuse(
                    "'at a time' or 'may fail'", "write 'for each mails, 4 at a time, 1 may fail'"
                )
        self._put(made, place, "for_each", given, at)
        return False

    def _retry(self, made: dict[str, Any], place: Place, at: int) -> bool:
        """``retry N [every D | from D] [times X] [at most D] [jitter X]``."""
        text, inside = self.text, (*place, "retry")
        number_at = text.blank()
        given: dict[str, Any] = {"max_attempts": text.number("a number of attempts")}
        self.desk.places[(*inside, "max_attempts")] = text.place(number_at)
        while not text.sees(";") and not text.sees("}"):
            key_at = text.blank()
            if text.keyword("every"):
                self._put(given, inside, "backoff_ms", text.duration(), key_at)
            elif text.keyword("from"):
                self._put(given, inside, "initial_ms", text.duration(), key_at)
            elif text.keyword("times"):
                self._put(given, inside, "multiplier", text.number(), key_at)
            elif text.keyword("at", "most"):
                self._put(given, inside, "max_ms", text.duration(), key_at)
            elif text.keyword("jitter"):
                self._put(given, inside, "jitter", text.number(), key_at)
            else:
                raise text.refuse("';' or one of every, from, times, at most, jitter", "end it with ';'")
        self._put(made, place, "retry", given, at)
        return False

    def _tags(self, made: dict[str, Any], place: Place, at: int) -> bool:
        tags: list[str] = []
        while True:
            self.desk.places[(*place, "tags", len(tags))] = self.text.place(self.text.blank())
            tags.append(self.text.string())
            if not self.text.sign(","):
                break
        self._put(made, place, "tags", tags, at)
        return False
