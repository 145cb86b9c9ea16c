"""What goes: from the few rules a person may give to the values that are in this run.

    secrets                      whatever looks like a key, and the secrets this home knows; always with any
    other contacts                     every e-mail address, and names and telephone numbers of the people in
    it value:TEXT                   this very text field:NODE.PORT[.PATH]       what a node gave on a port, or
    everything below a path in it; ``*`` is every item field:params.NAME[.PATH]     the same of a parameter

Knows: how each is found in the events and bytes of a run. Does not know: what becomes of it (``standins``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pog.redact import find_emails, find_secrets
from pog.sealed.seal import Content
from pog.sealed.standins import Needle, Standins, decoded_texts
from runloop.errors import RefusedError, UsageError
from runloop.events import NodeFinished, RunStarted

__all__ = ["Known", "Rules", "classes", "needles", "parse_rules", "remains", "texts"]

_SHORTEST = 3
"""Characters: a shorter text stands everywhere by chance."""
_STOP = frozenset(
    {"user", "system", "assistant", "tool", "text", "name", "mail", "email", "contact", "true", "false"}
    | {"null", "none", "root", "admin", "info", "the", "and", "von", "van", "der", "for", "you", "test"}
)
"""Words that are in names here and there, and in every protocol."""
_PHONE = re.compile(r"(?<![\w.])\+?\d[\d ()/-]{6,18}\d(?![\w.])")
_SENDER = re.compile(r"([^\W\d_][\w'. -]{1,60}?)\s*<[^<>\s]{1,200}@[^<>\s]{1,200}>")
_NAMES = ("name", "names", "display_name", "nicknames", "full_name")
_PHONES = ("phone", "phones", "tel")


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What the home knows beside the run: it is looked for, and nothing of it goes into the file."""

    secrets: list[str] = []
    names: list[str] = []
    phones: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Rules as they were given."""

    contacts: bool = False
    values: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        """The classes, without what they are of."""
        found = ["secrets"]
        found += ["contacts"] if self.contacts else []
        found += ["value"] if self.values else []
        return found + [f"field:{path}" for path in self.fields]


def parse_rules(given: Sequence[str]) -> Rules:
    """``secrets,contacts`` or ``value:…`` or ``field:…``; raises :class:`UsageError` with the rule at
    fault."""
    contacts, values, fields = False, [], []
    for rule in _split(given):
        kind, colon, rest = rule.partition(":")
        if rule in ("secrets", "contacts"):
            contacts = contacts or rule == "contacts"
        elif kind == "value" and colon:
            values.append(_long_enough(rest, rule))
        elif kind == "field" and rest.count(".") >= 1 and all(rest.split(".")):
            fields.append(rest)
        else:
            raise UsageError(
                f"{rule!r} is no rule of --redact",
                hint="write secrets, contacts, value:TEXT, field:NODE.PORT.PATH or field:params.NAME",
                code="redact.rule",
            )
    return Rules(contacts=contacts, values=tuple(values), fields=tuple(fields))


def _split(given: Sequence[str]) -> Iterator[str]:
    """``value:`` keeps its commas."""
    for rule in given:
        yield from [rule] if rule.startswith("value:") else filter(None, rule.split(","))


def _long_enough(text: str, rule: str) -> str:
    if len(text) < _SHORTEST:
        raise UsageError(
            f"{rule!r}: a text of fewer than {_SHORTEST} characters stands everywhere by chance",
            hint="name a longer one, or the field it is in",
            code="redact.short",
        )
    return text


# --- what there is --------------------------------------------------------------------------------


def texts(content: Content) -> Iterator[str]:
    """Every text of the record itself: payloads, provenance, bytes; decoded where it is encoded."""
    for row in content.rows:
        for cell in (row.actor, row.payload, row.provenance):
            yield from decoded_texts(cell)
    for data in content.blobs.values():
        yield from decoded_texts(data.decode("utf-8", "surrogateescape"))


def needles(content: Content, rules: Rules, known: Known) -> list[Needle]:
    """The values of this run that the rules name. Raises :class:`UsageError` for a field that is not in
    it."""
    every = "\n".join(texts(content))
    low = every.casefold()
    found = {Needle(text=secret, kind="secret") for secret in find_secrets(every)}
    found |= {
        Needle(text=secret, kind="secret")
        for secret in known.secrets
        if len(secret) >= _SHORTEST and secret.casefold() in low
    }
    found |= {Needle(text=value, kind="value") for value in rules.values}
    for path in rules.fields:
        found |= {Needle(text=text, kind="field") for text in _field(content, path)}
    if rules.contacts:
        found |= _contacts(content, known, every, low)
    return sorted(found, key=lambda needle: (needle.kind, needle.text))


def classes(content: Content, known: Known) -> dict[str, int]:
    """How many values of each class of personal data are in a run."""
    every = "\n".join(texts(content))
    low = every.casefold()
    secrets = {*find_secrets(every)} | {it for it in known.secrets if len(it) >= 6 and it.casefold() in low}
    people = _contacts(content, known, every, low)
    return {
        "secrets": len(secrets),
        "e-mail addresses": sum(needle.kind == "email" for needle in people),
        "words of names": sum(needle.kind == "name" for needle in people),
        "telephone numbers": len({*_PHONE.findall(every)} & {n.text for n in people if n.kind == "phone"}),
    }


def remains(content: Content, standins: Standins) -> dict[str, int]:
    """Single words of names that are still there, put there by an agent's own code, in how many places.

    Raises :class:`RefusedError` at the first place where anything else that was to go still is.
    """
    left: Counter[str] = Counter()
    for where, data in _places(content):
        for kind in standins.remains(data):
            if kind != "name":
                raise RefusedError(
                    f"{where} would still hold a value of the class {kind}",
                    hint="what an agent's own files say is never changed: choose other rules",
                    code="redact.remains",
                    where=where,
                )
            left[kind] += 1
    return dict(left)


def _places(content: Content) -> Iterator[tuple[str, bytes]]:
    for row in content.rows:
        for cell in (row.actor, row.payload, row.provenance):
            yield f"event {row.id}", cell.encode()
    for name, data in content.blobs.items():
        yield f"blob {name}", data
    for digest, files in content.bundles.items():
        for path, data in files.items():
            yield f"{path} in bundle {digest[:12]}", data


def _contacts(content: Content, known: Known, every: str, low: str) -> set[Needle]:
    names = {*known.names, *_SENDER.findall(every)}
    phones = {*known.phones}
    for value in _values(content):
        for person in _objects(value):
            if any("@" in text for text in _leaves(person)):
                names |= {*_under(person, _NAMES)}
                phones |= {*_under(person, _PHONES)}
    words = {word for name in names for word in re.findall(r"[^\W\d_]+", name)}
    return (
        {Needle(text=address, kind="email") for address in find_emails(every)}
        | {Needle(text=phone, kind="phone") for phone in phones if len(phone) > 4 and phone.casefold() in low}
        | {
            Needle(text=word, kind="name")
            for word in words
            if len(word) >= _SHORTEST and word.casefold() not in _STOP and word.casefold() in low
        }
    )


def _values(content: Content) -> Iterator[Any]:
    for event in content.events:
        yield msgspec.to_builtins(event.payload)
    for data in content.blobs.values():
        try:
            yield msgspec.json.decode(data)
        except (msgspec.DecodeError, RecursionError, ValueError):
            continue


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _objects(item)
    elif isinstance(value, list):
        for item in value:
            yield from _objects(item)


def _under(value: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    """Texts under these keys of this very object."""
    for name in names:
        found = value.get(name)
        yield from (text for text in (found if isinstance(found, list) else [found]) if isinstance(text, str))


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int | float):
        yield msgspec.json.encode(value).decode()
    else:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)


def _field(content: Content, path: str) -> Iterator[str]:
    """The texts at a place, in every attempt and item of the node."""
    first, second, *rest = path.split(".")
    found, there = 0, False
    for event in content.events:
        payload = event.payload
        values: list[Any] = []
        if first == "params" and isinstance(payload, RunStarted):
            values = [payload.params[second]] if second in payload.params else []
        elif isinstance(payload, NodeFinished) and payload.output and payload.node.partition("[")[0] == first:
            values = payload.output.get("ports", {}).get(second, [])
        there = there or bool(values)
        for value in values:
            for text in (leaf for part in _below(value, rest) for leaf in _leaves(part)):
                if len(text) >= _SHORTEST:
                    found += 1
                    yield text
    if not found:
        raise UsageError(
            f"field:{path} names nothing in this run" if not there else
            f"field:{path} holds no text of {_SHORTEST} characters or more",
            hint="'rlp trace RUN' shows the nodes and what they gave",
            code="redact.field",
        )  # fmt: skip


def _below(value: Any, path: Sequence[str]) -> Iterator[Any]:
    if not path:
        yield value
        return
    step, *rest = path
    if isinstance(value, list) and step == "*":
        for item in value:
            yield from _below(item, rest)
    elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
        yield from _below(value[int(step)], rest)
    elif isinstance(value, dict) and step in value:
        yield from _below(value[step], rest)
