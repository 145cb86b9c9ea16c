"""Capability tokens: signed, narrowable by whoever holds one, checked with a public key alone.

Knows: the block format, signing, narrowing and verification, on Biscuit (the only module that imports it).
Does not know: private keys at rest, which tokens were revoked (the set is an argument), or the time (an
argument, too); nothing here asks a daemon.

A token is a chain of blocks. Each block carries one canonical JSON record ``{v, grants, holder, run, node,
depth, expires_ms}`` and Biscuit's own check of its expiry. The rights of a token are the *meet* of all its
blocks, so a block that claims more than the one before adds nothing; a block that contains anything else
than what this module writes makes the whole token invalid.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, NoReturn, cast

import msgspec
from biscuit_auth import (
    Algorithm,
    AuthorizerBuilder,
    Biscuit,
    BiscuitBuilder,
    BlockBuilder,
    PrivateKey,
    PublicKey,
)

from runloop.caps.policy import CapsError, Policy, effective
from runloop.digest import MAX_SAFE, canonical
from runloop.errors import RefusedError

__all__ = [
    "MAX_DEPTH",
    "MAX_TOKEN_BYTES",
    "TokenError",
    "Verified",
    "attenuate",
    "mint",
    "public_key",
    "verify",
]

MAX_DEPTH = 4
"""How often a minted token may be narrowed, unless fewer are asked for."""
MAX_TOKEN_BYTES = 262_144

_EVALUATION_TIME = timedelta(seconds=10)
_BLOCK = re.compile(r"runloop\(hex:((?:[0-9a-f]{2})+)\);\ncheck if now_ms\(\$t\), \$t < (\d{1,16});\n?\Z")
_SOURCE = "runloop({body}); check if now_ms($t), $t < {expires}"


class TokenError(RefusedError):
    """The token does not carry its bearer. ``named_code`` says why.

    ``token.invalid`` (not ours, or altered), ``token.expired``, ``token.revoked``, ``token.widened`` (a block
    asks for more than it may narrow to), ``token.depth`` (narrowed too often).
    """

    code: ClassVar[str] = "token.invalid"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What a good token says."""

    grants: Policy
    """The meet of every block."""
    ids: tuple[str, ...]
    """Revocation ids from root to leaf; revoking any of them voids this token."""
    holder: str
    run: str | None
    node: str | None
    expires_ms: int
    """The earliest expiry of any block."""
    depth: int
    """How often it may still be narrowed."""

    @property
    def token_id(self) -> str:
        """The id of the newest block: names this very token."""
        return self.ids[-1]

    @property
    def parent_id(self) -> str | None:
        """The id of the token this one was narrowed from."""
        return self.ids[-2] if len(self.ids) > 1 else None


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One block, decoded."""

    v: int
    grants: dict[str, Any]
    holder: str
    run: str | None
    node: str | None
    depth: int
    expires_ms: int

    def parameters(self) -> dict[str, Any]:
        """What fills in :data:`_SOURCE`."""
        return {"body": canonical(msgspec.to_builtins(self)), "expires": self.expires_ms}


def public_key(private_key: bytes) -> bytes:
    """The 32 public bytes of an Ed25519 seed of 32 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def mint(
    private_key: bytes,
    grants: Policy,
    *,
    holder: str,
    run: str | None,
    node: str | None = None,
    expires_ms: int,
    depth: int = MAX_DEPTH,
) -> bytes:
    """Sign a new token.

    ``private_key`` is an Ed25519 seed of 32 bytes, ``holder`` the bearer's name for the ledger. The token is
    void from ``expires_ms`` (unix milliseconds) on. Raises :class:`TokenError` for bounds that make no sense.
    """
    record = _record(grants, holder, run, node, expires_ms=expires_ms, depth=depth)
    key = _private(private_key)
    return _bytes(BiscuitBuilder(_SOURCE, record.parameters()).build(key))


def attenuate(
    token: bytes,
    public_key: bytes,
    narrower: Policy,
    *,
    holder: str | None = None,
    node: str | None = None,
    expires_ms: int | None = None,
    depth: int | None = None,
) -> bytes:
    """Narrow a token, offline: no private key is needed.

    What is not given stays as it is. Raises :class:`TokenError` with code ``token.widened`` when ``narrower``
    grants what the token does not, when it would live longer, change its node or be deeper than the parent.
    """
    biscuit = _parse(token, public_key)
    parent = _fold(biscuit)
    if parent.depth < 1:
        _refuse("token.depth", "this token may not be narrowed any further", "mint a fresh one")
    left = effective(parent.grants, narrower)
    if left.warnings:
        _refuse("token.widened", left.warnings[0], "ask for a subset of the parent's grants")
    if node is not None and parent.node not in (None, node):
        _refuse(
            "token.widened", f"this token is for node {parent.node}, not {node}", "narrow the run's token"
        )
    record = _record(
        left.policy,
        holder if holder is not None else parent.holder,
        parent.run,
        node if node is not None else parent.node,
        expires_ms=expires_ms if expires_ms is not None else parent.expires_ms,
        depth=depth if depth is not None else parent.depth - 1,
    )
    _check_step(parent, record)
    return _bytes(biscuit.append(BlockBuilder(_SOURCE, record.parameters())))


def verify(token: bytes, public_key: bytes, *, now_ms: int, revoked: Collection[str] = ()) -> Verified:
    """Check signature, chain, expiry and revocation; return what the token grants.

    Raises :class:`TokenError`. Needs no daemon: ``revoked`` holds the revocation ids known to be void.
    """
    biscuit = _parse(token, public_key)
    verified = _fold(biscuit)
    gone = [name for name in verified.ids if name in revoked]
    if gone:
        which = "this token" if gone[-1] == verified.token_id else "the token it was narrowed from"
        _refuse(
            "token.revoked", f"{which} was revoked", "start the run again to get a fresh token", token=gone[0]
        )
    if now_ms >= verified.expires_ms:
        _refuse(
            "token.expired", f"this token expired at {verified.expires_ms} (unix ms)", "start the run again"
        )
    try:
        # Biscuit's own evaluation of the expiry checks: a second opinion, and what other readers will do.
        _authorizer(now_ms).build(biscuit).authorize()
    except Exception as error:
        raise TokenError(f"the token's own checks fail: {error}", hint="start the run again") from error
    return verified


# --- blocks ---------------------------------------------------------------------------------------


def _record(
    grants: Policy, holder: str, run: str | None, node: str | None, *, expires_ms: int, depth: int
) -> _Record:
    if not 0 <= depth <= MAX_DEPTH:
        _refuse("token.depth", f"depth {depth} is not between 0 and {MAX_DEPTH}", "ask for fewer steps")
    if not 0 < expires_ms <= MAX_SAFE:
        _refuse("token.expired", f"{expires_ms} is no time a token can expire at", "give unix milliseconds")
    return _Record(
        v=1,
        grants=grants.to_json(),
        holder=holder,
        run=run,
        node=node,
        depth=depth,
        expires_ms=expires_ms,
    )


# The extension's type stubs lag behind it: they know neither the algorithm argument nor its values.


def _private(seed: bytes) -> PrivateKey:
    return PrivateKey.from_bytes(seed, Algorithm.Ed25519)  # type: ignore[call-arg, attr-defined]


def _public(raw: bytes) -> PublicKey:
    return PublicKey.from_bytes(raw, Algorithm.Ed25519)  # type: ignore[call-arg, attr-defined]


def _authorizer(now_ms: int) -> AuthorizerBuilder:
    """Biscuit's evaluation, with time to be preempted: it gives up after 1 ms of wall clock by default.

    The blocks hold one check each (:data:`_BLOCK`), so that the other limits bound the work well enough.
    """
    builder: Any = AuthorizerBuilder("now_ms({now}); allow if true", {"now": now_ms})
    limits = builder.limits()
    limits.max_time = _EVALUATION_TIME
    builder.set_limits(limits)
    return cast(AuthorizerBuilder, builder)


def _bytes(biscuit: Biscuit) -> bytes:
    return bytes(biscuit.to_bytes())


def _parse(token: bytes, root: bytes) -> Biscuit:
    if not 0 < len(token) <= MAX_TOKEN_BYTES:
        _refuse("token.invalid", f"{len(token)} bytes are no token", "start the run again")
    try:
        return Biscuit.from_bytes(token, _public(root))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the extension is no Exception
        raise TokenError(
            "the token was not signed by this installation, or was altered", hint="start the run again"
        ) from error


def _fold(biscuit: Biscuit) -> Verified:
    """Read every block strictly and keep the meet."""
    ids = tuple(biscuit.revocation_ids)
    verified: Verified | None = None
    for index in range(biscuit.block_count()):
        record = _decode(biscuit, index)
        try:
            grants = Policy.from_json(record.grants)
        except CapsError as error:
            raise TokenError(
                f"block {index} of the token: {error.message}", hint="upgrade runloop"
            ) from error
        if verified is not None:
            _check_step(verified, record)
            grants = effective(verified.grants, grants).policy
        verified = Verified(
            grants=grants,
            ids=ids[: index + 1],
            holder=record.holder,
            run=record.run,
            node=record.node,
            expires_ms=record.expires_ms,
            depth=record.depth,
        )
    assert verified is not None  # a Biscuit has an authority block
    return verified


def _decode(biscuit: Biscuit, index: int) -> _Record:
    if biscuit.block_external_key(index) is not None:
        _refuse("token.invalid", f"block {index} of the token is signed by a stranger", "start the run again")
    match = _BLOCK.match(biscuit.block_source(index))
    if match is None:
        _refuse("token.invalid", f"block {index} of the token says more than a grant", "start the run again")
    body = bytes.fromhex(match[1])
    try:
        record = msgspec.json.decode(body, type=_Record)
    except msgspec.MsgspecError as error:
        raise TokenError(f"block {index} of the token: {error}", hint="upgrade runloop") from error
    if record.v != 1 or int(match[2]) != record.expires_ms or not 0 <= record.depth <= MAX_DEPTH:
        _refuse("token.invalid", f"block {index} of the token contradicts itself", "start the run again")
    return record


def _check_step(parent: Verified, child: _Record) -> None:
    """A child's run, node, depth and expiry lie within its parent's."""
    if child.depth >= parent.depth or child.depth < 0:
        _refuse("token.depth", "the token was narrowed more often than allowed", "mint a fresh one")
    if child.expires_ms > parent.expires_ms:
        _refuse("token.widened", "the narrowed token would outlive its parent", "choose an earlier expiry")
    if child.run != parent.run or (parent.node is not None and child.node != parent.node):
        _refuse("token.widened", "the narrowed token is for another run or node", "narrow the run's token")


def _refuse(code: str, message: str, hint: str, **data: Any) -> NoReturn:
    raise TokenError(message, hint=hint, code=code, **data)
