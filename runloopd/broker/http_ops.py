"""``http.fetch``: one exchange with a web server, within the ``net`` capability.

Knows: what a guest may put into a request, how ``net`` is checked for places and for the addresses they
resolve to, how an answer looks to the guest. Does not know: how bytes travel (``providers.web``), recording
(the gate).

Only GET and HEAD are served: they read. A request that changes something elsewhere would need a person who
approves its very bytes, and is refused until there is a way to ask for that.
"""

from __future__ import annotations

import base64
import codecs
import re
from dataclasses import replace
from typing import Any, cast

from runloop.caps.destination import Destination, kind_of_address, parse_destination
from runloop.caps.grants import NetRule
from runloop.caps.headers import FRAMING, NAME, VALUE
from runloop.caps.policy import Policy, Verdict
from runloop.errors import RefusedError, UsageError
from runloop.ops import HttpFetch
from runloopd.broker.asks import Ask, CapabilityError, Done, audit
from runloopd.broker.flows import Flows, place_label, refused, web_sink
from runloopd.broker.providers.web import Address, WebPort, WebRequest, WebResponse
from runloopd.broker.secret_ops import Lending

__all__ = ["HttpOps", "NetPermission", "body_text", "host_granted", "how_to_obtain", "net_verdict"]

MAX_BYTES = 4 * 1024 * 1024
_MAX_HEADERS = 32
_MAX_HEADER_BYTES = 8_192
_READS = ("GET", "HEAD")
_SENDS = ("DELETE", "OPTIONS", "PATCH", "POST", "PUT")
_TEXTUAL = re.compile(r"text/|application/(json|xml|javascript|x-ndjson|[\w.+-]+\+(json|xml))\Z")


class HttpOps:
    """``http.fetch``."""

    def __init__(self, *, web: WebPort, lending: Lending | None = None, flows: Flows | None = None) -> None:
        """``lending``: puts secrets in the place of references; None: a reference is any other text.
        ``flows``: whom what is private may be told; None: nobody it is not from."""
        self._web = web
        self._lending = lending
        self._flows = flows or Flows()

    async def fetch(self, ask: Ask) -> Done:
        """``{status, url, headers, text|base64, size, truncated}``."""
        args = cast(HttpFetch, ask.args)
        place = parse_destination(args.url)
        method = args.method.upper()
        permission = NetPermission(ask, flows=self._flows)
        permission.require(method, place)
        request = WebRequest(
            method=checked_method(method),
            place=place,
            headers=_headers(args.headers),
            body=_content(args),
            max_bytes=_bound(args.max_bytes),
            owner=ask.caller.run,
        )
        permission.carries = sum(len(name) + len(value) for name, value in request.headers)
        if self._lending is None:
            answer = await self._web.exchange(request, permission)
            return Done(value=_shown(answer), label=place_label(answer.place, confided=permission.inward))
        filled = await self._lending.fill(ask, request.headers, place)
        request = replace(request, headers=filled.headers, keys=filled.keys)
        answer = await self._web.exchange(request, permission)
        clean = filled.scrubber.data(answer.body, cut=answer.truncated)
        label = place_label(answer.place, confided=permission.inward or bool(filled.keys))
        return Done(value=filled.scrubber.value(_shown(replace(answer, body=clean))), label=label)


def checked_method(method: str) -> str:
    """A method that only reads; raises :class:`RefusedError` (``http.method``) for the others."""
    if method in _READS:
        return method
    if method not in _SENDS:
        raise UsageError(f"{method[:32]!r} is not an HTTP method", hint="use GET or HEAD", code="op.args")
    raise RefusedError(
        f"{method} changes something elsewhere: it needs a person's approval, which cannot be asked for yet",
        hint="use GET or HEAD",
        code="http.method",
    )


# --- rights ---------------------------------------------------------------------------------------


class NetPermission:
    """The ``net`` capability of one call, checked again at every hop.

    Where a call went is on record, hop by hop, as allowed ``cap.audit`` events: without queries, which may
    hold what is nobody else's business.
    """

    def __init__(self, ask: Ask, *, why: str = "", flows: Flows | None = None) -> None:
        """``why``: what needs it, for the words of a refusal; empty for the guest itself. ``flows``: says at
        every hop whether the place may be told what the run has heard; None: somebody else has said so."""
        self._ask = ask
        self._why = why
        self._flows = flows
        self.carries = 0
        """Bytes beside the address that each request takes with it."""
        self.inward = False
        """Whether it leads to an address that is not public."""
        self._grants = ask.grants

    def check(self, method: str, place: Destination) -> None:
        """As :meth:`require`, for a request that is now going to be made."""
        verdict = self.require(method, place)
        address = len(str(place))
        self._ask.outbound(place.authority, address + self.carries, address)
        there = replace(verdict, target=f"{method} {place.scheme}://{place.authority}{place.path}")
        self._ask.facts.append(audit(self._ask.agent, there, self._ask.caller, self._ask.call))

    def require(self, method: str, place: Destination) -> Verdict:
        """Raise :class:`CapabilityError` unless ``net`` covers the request, at this moment."""
        grants = self._ask.check()
        self._grants = grants if isinstance(grants, Policy) else self._ask.grants
        verdict = net_verdict(self._grants, method, place, agent=self._ask.agent, why=self._why)
        if not verdict.allowed:
            raise CapabilityError(verdict)
        self._confide(place)
        return verdict

    def _confide(self, place: Destination) -> None:
        """Raise (``label.private``) unless the place may be told whatever the run has heard."""
        sink = web_sink(place)
        strangers = () if self._flows is None else self._flows.strangers(self._ask.run.tree, sink)
        if strangers:
            verdict = refused(self._ask.agent, "net", sink, strangers)
            raise CapabilityError(verdict, code="label.private")

    def dial(self, place: Destination, address: Address) -> None:
        """Raise (``net.address``) for an address that is not public, unless it is granted itself.

        A name is granted for what it is in the internet. That it leads into this machine or network is
        somebody else's wish, so the address has to stand in the grant, too.
        """
        kind = kind_of_address(address)
        self.inward |= kind is not None
        if kind is None or self._named(place, address):
            return
        target, agent = str(address), self._ask.agent
        leads = "is" if place.address == address else f"leads to {address}, which is"
        raise CapabilityError(
            Verdict(
                allowed=False,
                capability="net",
                target=target,
                reason=f"{place.host} {leads} no public address ({kind}): net {target} is not granted to"
                f" {agent}",
                how_to_obtain=f"the author adds {_spelled(address)!r} to 'net' in policy.caps, too",
            ),
            code="net.address",
        )

    def _named(self, place: Destination, address: Address) -> bool:
        names = (
            {str(address), "localhost"}
            if address.is_loopback and place.host == "localhost"
            else {str(address)}
        )
        rules = self._grants.value("net")
        return isinstance(rules, tuple) and any(
            isinstance(rule, NetRule) and rule.host in names and rule.port in (0, place.port)
            for rule in rules
        )


def net_verdict(grants: Policy, method: str, place: Destination, *, agent: str, why: str = "") -> Verdict:
    """Whether ``net`` covers a request; the refusal names the permission that is missing."""
    full = grants.allows("net", f"{method} {place}", agent=agent)
    if full.allowed:
        return full
    host = place.authority
    needs = f"{why} needs net {host}" if why else f"net {host}"
    granted = full.reason.rpartition(": ")[2]
    if host_granted(grants, place):
        reason = f"{needs} for {method} {place.scheme}://{host}{place.path}, which is beyond what {agent} has"
    else:
        reason = f"{needs}{', which' if why else ''} is not granted to {agent}: {granted}"
    return Verdict(
        allowed=False,
        capability="net",
        target=host,
        reason=reason,
        how_to_obtain=how_to_obtain(agent, "net"),
    )


def how_to_obtain(agent: str, capability: str) -> str:
    """What to type. It gives back no more than the bundle's own policy asks for."""
    return f"if its policy.caps asks for it, the operator may type 'rlp cap grant {agent} {capability}'"


def host_granted(grants: Policy, place: Destination) -> bool:
    """Whether anything at all of a place is granted."""
    rules = grants.value("net")
    wanted = NetRule(host=place.host, port=place.port)
    if not isinstance(rules, tuple):
        return rules
    return any(
        isinstance(rule, NetRule) and NetRule(host=rule.host, port=rule.port).covers(wanted) for rule in rules
    )


def _spelled(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


# --- the request ----------------------------------------------------------------------------------


def _headers(given: dict[str, str]) -> tuple[tuple[str, str], ...]:
    if len(given) > _MAX_HEADERS:
        raise _bad(f"{len(given)} headers; at most {_MAX_HEADERS} are sent")
    if sum(len(name) + len(value) for name, value in given.items()) > _MAX_HEADER_BYTES:
        raise _bad(f"headers of more than {_MAX_HEADER_BYTES} bytes")
    for name, value in given.items():
        if not NAME.match(name) or (value and not VALUE.match(value)):
            raise _bad(f"the header {name[:64]!r} cannot be written: plain ASCII, no line breaks")
        if name.lower() in FRAMING or name.lower().startswith(("proxy-", "sec-")):
            raise _bad(f"the header {name[:64]!r} is not the guest's to set")
    if len({name.lower() for name in given}) < len(given):
        raise _bad("the same header twice")
    return tuple(given.items())


def _content(args: HttpFetch) -> bytes:
    if args.text is None and args.base64 is None:
        return b""
    if args.text is not None and args.base64 is not None:
        raise _bad("give either text or base64")
    raise _bad("GET and HEAD carry no body")


def _bound(max_bytes: int) -> int:
    if not 1 <= max_bytes <= MAX_BYTES:
        raise _bad(f"max_bytes is {max_bytes}, not 1 to {MAX_BYTES}")
    return max_bytes


def _bad(why: str) -> UsageError:
    return UsageError(f"http.fetch: {why}", code="op.args")


# --- the answer -----------------------------------------------------------------------------------


def _shown(answer: WebResponse) -> dict[str, Any]:
    value: dict[str, Any] = {
        "status": answer.status,
        "url": str(answer.place),
        "headers": answer.headers,
        "size": len(answer.body),
        "truncated": answer.truncated,
    }
    text = body_text(answer)
    if text is None:
        value["base64"] = base64.b64encode(answer.body).decode()
    else:
        value["text"] = text
    return value


def body_text(answer: WebResponse) -> str | None:
    """The body as text, if it says to be text and is; a character that was cut in two is left out."""
    media, _, parameters = answer.headers.get("content-type", "").lower().partition(";")
    charset = re.search(r"charset=\"?([a-z0-9_-]+)", parameters)
    if answer.body and not _TEXTUAL.match(media.strip()):
        return None
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(answer.body, final=not answer.truncated)
    except UnicodeDecodeError:
        return None
