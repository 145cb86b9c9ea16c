"""Mail addresses, parsed strictly: what cannot be read in exactly one way is refused.

Knows: ``local@domain`` and ``Name <local@domain>``; plain ASCII local parts, international domains as IDNA.
Deliberately without comments, quoted local parts, groups, routes and lists: every one of them has been used
to show one recipient and send to another. Does not know: headers or servers.
"""

from __future__ import annotations

from dataclasses import dataclass

from runloop.errors import UsageError

__all__ = ["Address", "parse_address"]

_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~.")
_LABEL = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
_MAX_NAME = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """One mailbox."""

    name: str
    """Display name, decoded; empty where there is none."""
    local: str
    domain: str
    """Lower case, ASCII (``xn--…`` for international ones)."""

    @property
    def spec(self) -> str:
        """``local@domain``: what the envelope carries and a person is shown."""
        return f"{self.local}@{self.domain}"


def parse_address(text: str) -> Address:
    """Parse one mailbox; raises :class:`UsageError` (``mail.address``) saying what is wrong with it."""
    name, spec = "", text.strip(" ")
    if not spec.isprintable():
        raise _refused(text, "it has line breaks or control characters")
    if spec.endswith(">"):
        name, separator, spec = spec[:-1].rpartition("<")
        if not separator:
            raise _refused(text, "the '<' is missing")
        name = _display_name(name.strip(" "), text)
    local, separator, domain = spec.rpartition("@")
    if not separator:
        raise _refused(text, "the '@' is missing")
    if not local or len(local) > 64 or not _LOCAL.issuperset(local) or "" in local.split("."):
        raise _refused(text, "the part before the '@' is not plain letters, digits and dots")
    return Address(name=name, local=local, domain=_domain(domain, text))


def _display_name(name: str, text: str) -> str:
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = name[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    elif set(name) & set('<>@,;:"()[]\\'):
        raise _refused(text, "a name with special characters must stand in double quotes")
    if "@" in name or "<" in name or ">" in name:
        raise _refused(text, "the name looks like another address")
    if len(name) > _MAX_NAME:
        raise _refused(text, "the name is too long")
    return name


def _domain(domain: str, text: str) -> str:
    try:
        encoded = domain if domain.isascii() else domain.encode("idna").decode()
    except UnicodeError as error:
        raise _refused(text, "the domain cannot be written in ASCII") from error
    encoded = encoded.lower()
    labels = encoded.split(".")
    good = all(
        0 < len(label) <= 63 and _LABEL.issuperset(label) and not label.startswith("-") and label[-1] != "-"
        for label in labels
    )
    if not good or len(encoded) > 190:
        raise _refused(text, "the part after the '@' is not a domain")
    return encoded


def _refused(text: str, why: str) -> UsageError:
    return UsageError(
        f"{text[:200]!r} is not a mail address: {why}", hint="write name@example.org", code="mail.address"
    )
