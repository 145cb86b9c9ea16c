"""Where an HTTP request would go: URLs read in exactly one way, and what kind of place an address is.

Knows: the URLs that are accepted (and that everything readers disagree about is none of them), which
addresses are public. Does not know: who may go there (``caps.policy``), how names are resolved, or how bytes
travel. Pure.

A URL that two programs read differently passes the check of one and is dialled by the other; so user names,
backslashes, odd spellings of IPv4 addresses, empty ports, dot segments and unescaped characters are refused,
not repaired.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NoReturn
from urllib.parse import quote, urljoin

from runloop.errors import UsageError

__all__ = ["Destination", "kind_of_address", "parse_destination", "redirected"]

MAX_URL = 8_192

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<rest>[^#]*)(#.*)?\Z")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_ALLOWED = "-._~!$&'()*+,;=:@/?%"
_TARGET = re.compile(rf"([A-Za-z0-9{re.escape(_ALLOWED.replace('%', ''))}]|%[0-9A-Fa-f]{{2}})*\Z")
_DOTS = re.compile(r"/(\.|%2e){1,2}(/|\Z)", re.IGNORECASE)
_PORTS = {"https": 443, "http": 80}

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """One place a request may be sent to."""

    scheme: str
    """``https`` or ``http``."""
    host: str
    """Lower case, no dot at its end; an IPv6 address in its shortest form, without brackets."""
    port: int
    target: str
    """Path and query, exactly as they are sent."""

    @property
    def address(self) -> Address | None:
        """The host, if it is an address and no name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def authority(self) -> str:
        """Host and, unless it is the scheme's own, port: the ``Host`` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """What makes two destinations the same server."""
        return (self.scheme, self.host, self.port)

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def parse_destination(url: str) -> Destination:
    """Read an absolute http or https URL; raises :class:`UsageError` (``http.url``) saying what is wrong.

    The fragment is dropped: it never leaves a browser either.
    """
    if len(url) > MAX_URL:
        _refuse(f"it is longer than {MAX_URL} characters")
    if not url.isascii():
        _refuse("it has characters beyond ASCII; write names as punycode, the rest as %XX")
    found = _URL.match(url)
    scheme = found["scheme"].lower() if found else ""
    if found is None or scheme not in _PORTS:
        _refuse("it is not https://host/path")
    if "@" in found["authority"]:
        _refuse("it carries a user name or password")
    host, port = _authority(found["authority"])
    rest = found["rest"]
    if not _TARGET.match(rest):
        _refuse("its path or query has characters that must be written as %XX")
    target = rest if rest.startswith("/") else f"/{rest}"
    if _DOTS.search(target.partition("?")[0]):
        _refuse("its path has . or .. in it; write the path they lead to")
    return Destination(scheme=scheme, host=host, port=port or _PORTS[scheme], target=target)


def redirected(base: Destination, location: str) -> Destination:
    """Where a ``Location`` header leads; raises :class:`UsageError` for what :func:`parse_destination` does.

    What servers write there unescaped is escaped first, as browsers do.
    """
    if len(location) > MAX_URL or any(ord(char) < 0x20 or char in "\x7f\\" for char in location):
        _refuse("it is too long or has control characters or backslashes")
    return parse_destination(urljoin(str(base), quote(location, safe=_ALLOWED + "#[]")))


def _authority(text: str) -> tuple[str, int]:
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            _refuse("its IPv6 address is not written as [address] or [address]:port")
        return _ipv6(inner), _port(rest[1:]) if rest else 0
    name, colon, port = text.lower().partition(":")
    return _name(name.removesuffix(".")), _port(port) if colon else 0


def _ipv6(text: str) -> str:
    try:
        if "%" in text:
            _refuse("an IPv6 address with a zone has no place in a URL")
        return str(IPv6Address(text))
    except ValueError:
        _refuse("the address in brackets is no IPv6 address")


def _name(name: str) -> str:
    labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.match, labels)):
        _refuse("its host is not a name or an address")
    if re.match(r"(\d+|0x[0-9a-f]*)\Z", labels[-1]):
        # 127.1, 0x7f.0.0.1, 017700000001 and 2130706433 are all 127.0.0.1 to the resolver.
        try:
            return str(IPv4Address(name))
        except ValueError:
            _refuse("its host looks like an IPv4 address and is not four plain numbers")
    return name


def _port(text: str) -> int:
    if not re.match(r"[0-9]{1,5}\Z", text) or not 0 < int(text) < 65_536:
        _refuse("its port is not a number from 1 to 65535")
    return int(text)


def _refuse(why: str) -> NoReturn:
    # The URL itself is not repeated: it may carry what nobody should read.
    raise UsageError(f"the URL is refused: {why}", hint="write https://host/path", code="http.url")


# --- addresses ------------------------------------------------------------------------------------

_V4 = {
    "this network": ("0.0.0.0/8",),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "carrier-grade NAT": ("100.64.0.0/10",),
    "loopback": ("127.0.0.0/8",),
    "link-local": ("169.254.0.0/16",),
    "multicast": ("224.0.0.0/4",),
    "for documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
    "reserved": ("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"),
}
_V6 = {
    "loopback": ("::1/128",),
    "unspecified": ("::/128",),
    "IPv4 in IPv6": ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "2002::/16", "2001::/32"),
    "NAT64": ("64:ff9b::/96", "64:ff9b:1::/48"),
    "link-local": ("fe80::/10",),
    "private": ("fc00::/7", "fec0::/10"),
    "multicast": ("ff00::/8",),
    "for documentation": ("2001:db8::/32", "3fff::/20"),
    "reserved": ("2001::/23", "5f00::/16"),
}
_KINDS: tuple[tuple[str, IPv4Network | IPv6Network], ...] = (
    *((kind, IPv4Network(net)) for kind, nets in _V4.items() for net in nets),
    *((kind, IPv6Network(net)) for kind, nets in _V6.items() for net in nets),
)
_UNICAST = IPv6Network("2000::/3")
"""All that is handed out of IPv6; what lies outside is refused without being known."""


def kind_of_address(address: Address) -> str | None:
    """Why an address is not simply out in the internet, in words; None for a public one.

    Addresses that hold another one (mapped, translated, tunnelled) are never public: which of the two is
    dialled is decided elsewhere.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "link-local"
    for kind, network in _KINDS:
        if address.version == network.version and address in network:
            return kind
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return "reserved"
    return None
