"""One capability's value: its canonical form, what it covers, and what two of them have in common.

Knows: the shapes a value of ``policy.caps`` may take and the algebra over them (parse, contain, meet, join).
Does not know: which capability is called how (see ``caps.policy``), files, tokens or agents. Pure.

A value is ``False`` (nothing), ``True`` (everything), or a sorted tuple of entries. The meet of two values
never covers more than either of them; where two patterns cross without one covering the other, the meet
drops both rather than guess.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "Entry",
    "GrantError",
    "NetRule",
    "Value",
    "covers_path",
    "join",
    "meet",
    "parse_hosts",
    "parse_roots",
    "parse_words",
    "pattern_covers",
    "pattern_matches",
]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.?\Z")
_SLY = re.compile(r"%2e|%2f|%5c|%25|%00|\\|(^|/)\.\.?[;%]", re.IGNORECASE)
"""Spellings that servers may read as another path than we do."""
_IPV6 = re.compile(r"[0-9a-f:.]+\Z")
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_MAX_ENTRIES = 1_024
_MAX_ENTRY = 4_096


class GrantError(ValueError):
    """A value that has no meaning; the text says what is wrong and what would be right."""


# --- patterns -------------------------------------------------------------------------------------


def pattern_matches(pattern: str, word: str) -> bool:
    """Whether ``word`` fits ``pattern``, in which only ``*`` is special. Linear: no regular expression."""
    head, *rest = pattern.split("*")
    if not rest:
        return pattern == word
    *middle, tail = rest
    if not word.startswith(head) or len(word) < len(head) + len(tail):
        return False
    if not word.endswith(tail):
        return False
    at, end = len(head), len(word) - len(tail)
    for piece in middle:
        found = word.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def pattern_covers(wide: str, narrow: str) -> bool:
    """Whether every word that fits ``narrow`` fits ``wide``. Sound; may miss odd crossings of ``*``."""
    # A star of `narrow` is fed to `wide` as a letter no word contains: only a star of `wide` can swallow it.
    return pattern_matches(wide, narrow.replace("*", "\0"))


# --- directories ----------------------------------------------------------------------------------


def covers_path(root: str, path: str) -> bool:
    """Whether the normalised ``path`` is ``root`` or lies below it; ``/a/bc`` is not below ``/a/b``."""
    return root in (path, "/") or path.startswith(root + "/")


def parse_roots(value: Any) -> Value:
    """A list of absolute directories, normalised."""
    roots = []
    for item in _strings(value, "a list of absolute directories"):
        if not item.startswith("/") or item.startswith("//"):
            raise GrantError(f"{item!r} is not an absolute directory")
        if ".." in item.split("/"):
            raise GrantError(f"{item!r} contains '..'; write the directory itself")
        roots.append(posixpath.normpath(item))
    return _tidy(roots, covers_path)


# --- hosts ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class NetRule:
    """One destination of the ``net`` capability."""

    host: str
    """Lower case, without port; ``*.example.org`` covers strict subdomains; IPv6 without brackets."""
    port: int = 0
    """0: any."""
    methods: tuple[str, ...] = ()
    """Upper case; empty: any."""
    paths: tuple[str, ...] = ()
    """Path prefixes by whole segments; empty: any."""
    allow_http: bool = False
    """True: plain HTTP, too."""

    def covers(self, other: NetRule) -> bool:
        """Whether everything ``other`` lets through passes here, too."""
        return (
            _host_covers(self.host, other.host)
            and self.port in (0, other.port)
            and (not self.methods or (bool(other.methods) and set(other.methods) <= set(self.methods)))
            and (not self.paths or (bool(other.paths) and all(self.on_path(path) for path in other.paths)))
            and (self.allow_http or not other.allow_http)
        )

    def on_path(self, path: str) -> bool:
        """Whether ``path`` lies under one of the prefixes."""
        return not self.paths or any(covers_path(prefix, path) for prefix in self.paths)

    def meet(self, other: NetRule) -> NetRule | None:
        """What both let through, or None: the narrower host, port, methods and paths."""
        if _host_covers(self.host, other.host):
            host = other.host
        elif _host_covers(other.host, self.host):
            host = self.host
        else:
            return None
        if self.port and other.port and self.port != other.port:
            return None
        methods = tuple(sorted(set(self.methods) & set(other.methods)))
        if not (self.methods and other.methods):
            methods = self.methods or other.methods
        elif not methods:
            return None
        paths = tuple(_common(self.paths, other.paths, covers_path))
        if not (self.paths and other.paths):
            paths = self.paths or other.paths
        elif not paths:
            return None
        return NetRule(
            host=host,
            port=self.port or other.port,
            methods=methods,
            paths=paths,
            allow_http=self.allow_http and other.allow_http,
        )

    def allows(self, url: str) -> bool:
        """Whether ``[METHOD ]scheme://host[:port]/path`` is let through."""
        method, _, rest = url.rpartition(" ")
        try:
            parts = urlsplit(rest)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        if parts.scheme not in ("https", "http") or parts.username is not None or not host:
            return False
        if parts.scheme == "http" and not self.allow_http:
            return False
        asked = NetRule(host=host, port=port or (80 if parts.scheme == "http" else 443))
        raw = parts.path or "/"
        if self.paths and (".." in raw.split("/") or _SLY.search(raw)):
            return False
        return (
            _host_covers(self.host, asked.host)
            and self.port in (0, asked.port)
            and (not self.methods or (method or "GET").upper() in self.methods)
            and self.on_path(posixpath.normpath("/" + raw.lstrip("/")))
        )

    def to_json(self) -> str | dict[str, Any]:
        """The shortest spelling :func:`parse_hosts` reads back."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        name = f"{host}:{self.port}" if self.port else host
        if not (self.methods or self.paths or self.allow_http):
            return name
        built: dict[str, Any] = {"hosts": [name]}
        if self.methods:
            built["methods"] = list(self.methods)
        if self.paths:
            built["paths"] = list(self.paths)
        if self.allow_http:
            built["allow_http"] = True
        return built


def _host_covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    if not wide.startswith("*."):
        return False
    return narrow.removeprefix("*.").endswith(wide[1:])


def parse_hosts(value: Any) -> Value:
    """``host``, ``host:port``, ``{hosts, methods, paths, allow_http}``, or a list of those."""
    items = [value] if isinstance(value, dict) else value
    if not isinstance(items, list | tuple):
        raise GrantError("expected a list of 'host', 'host:port' or {hosts, methods, paths, allow_http}")
    rules: list[NetRule] = []
    for item in items:
        if isinstance(item, dict):
            rules += _host_table(item)
        elif isinstance(item, str):
            rules.append(_host(item))
        else:
            raise GrantError(f"{item!r} is neither 'host', 'host:port' nor a table")
    return _tidy(rules, NetRule.covers)


def _host(text: str) -> NetRule:
    name, port = text.strip().lower(), ""
    if name.startswith("["):
        name, closed, rest = name[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")) or not _IPV6.match(name) or ":" not in name:
            raise GrantError(f"{text!r} is not '[ipv6]' or '[ipv6]:port'")
        port = rest[1:] if rest else ""
        if rest == ":":
            raise GrantError(f"{text!r} has an empty port")
    else:
        name, colon, port = name.partition(":")
        if (colon and not port) or "/" in port or not _HOST.match(name) or len(name) > 253:
            raise GrantError(f"{text!r} is not a host name; write 'host' or 'host:port', punycode for others")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise GrantError(f"{text!r}: the port is not between 1 and 65535")
    return NetRule(host=name.rstrip("."), port=int(port or 0))


def _host_table(table: dict[str, Any]) -> list[NetRule]:
    unknown = sorted(set(table) - {"hosts", "methods", "paths", "allow_http"})
    if unknown:
        raise GrantError(f"unknown key {unknown[0]!r}; known: hosts, methods, paths, allow_http")
    methods = tuple(sorted({word.upper() for word in _strings(table.get("methods", []), "methods: a list")}))
    for method in methods:
        if method not in _METHODS:
            raise GrantError(f"{method!r} is not one of {', '.join(_METHODS)}")
    roots = parse_roots(table.get("paths", []))
    paths = roots if isinstance(roots, tuple) else ()
    if ("methods" in table and not methods) or ("paths" in table and not paths):
        raise GrantError("an empty 'methods' or 'paths' would allow nothing; leave the key or the host out")
    allow_http = table.get("allow_http", False)
    if type(allow_http) is not bool:
        raise GrantError("allow_http: expected true or false")
    hosts = _strings(table.get("hosts", []), "hosts: a list")
    if not hosts:
        raise GrantError("'hosts' is missing")
    return [
        NetRule(
            host=rule.host,
            port=rule.port,
            methods=methods,
            paths=tuple(str(path) for path in paths),
            allow_http=allow_http,
        )
        for rule in map(_host, hosts)
    ]


# --- words ----------------------------------------------------------------------------------------


def parse_words(value: Any, word: re.Pattern[str], what: str, *, fold: bool = False) -> Value:
    """``true``, ``false`` or a list of patterns that each match ``word``; ``fold`` lowers the case."""
    if type(value) is bool:
        return value
    words = []
    for item in _strings(value, f"true, false or a list of {what}"):
        text = item.lower() if fold else item
        if not word.match(text):
            raise GrantError(f"{item!r} is not one of: {what}")
        words.append(text)
    return _tidy(words, pattern_covers)


# --- algebra --------------------------------------------------------------------------------------

Entry = str | NetRule
Value = bool | tuple[Entry, ...]


def meet(one: Value, other: Value, covers: Callable[[Any, Any], bool]) -> Value:
    """What both grant."""
    if one is True:
        return other
    if other is True:
        return one
    if one is False or other is False:
        return False
    if one and isinstance(one[0], NetRule):
        rules = [a.meet(b) for a in one for b in other if isinstance(a, NetRule) and isinstance(b, NetRule)]
        return _tidy([rule for rule in rules if rule is not None], covers)
    return _tidy(_common(one, other, covers), covers)


def join(one: Value, other: Value, covers: Callable[[Any, Any], bool]) -> Value:
    """What either grants."""
    if one is True or other is True:
        return True
    return _tidy([*(one or ()), *(other or ())], covers)


def _common(one: Iterable[Any], other: Iterable[Any], covers: Callable[[Any, Any], bool]) -> list[Any]:
    """Entries of either side that the other side covers."""
    left, right = list(one), list(other)
    found = [a for a in left if any(covers(b, a) for b in right)]
    return found + [b for b in right if b not in found and any(covers(a, b) for a in left)]


def _tidy(entries: Iterable[Any], covers: Callable[[Any, Any], bool]) -> Value:
    """Sorted, without what another entry covers; False when nothing is left."""
    unique = sorted(set(entries))
    if len(unique) > _MAX_ENTRIES:
        raise GrantError(f"{len(unique)} entries; at most {_MAX_ENTRIES} are read")
    kept = tuple(e for e in unique if not any(o != e and covers(o, e) and not covers(e, o) for o in unique))
    return kept or False


def _strings(value: Any, expected: str) -> list[str]:
    if not isinstance(value, list | tuple):
        raise GrantError(f"expected {expected}, not {type(value).__name__}")
    for item in value:
        if type(item) is not str or not item:
            raise GrantError(f"expected {expected}; {item!r} is not a text")
        if _CONTROL.search(item) or len(item) > _MAX_ENTRY:
            raise GrantError(f"{item[:64]!r} contains a control character or is too long")
    return list(value)
