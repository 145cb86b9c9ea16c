"""``rlp export-run`` and ``rlp verify FILE``: a run in one file, and what a stranger can say of it.

Knows: where this home's ledger, key and bundles lie, how the process that re-executes is started, how results
are shown. Does not know: the file's form (``pog.sealed``), or how a run is executed (``runloopd.verify``, a
process of its own: it needs no daemon, and no home).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlp.commands.replay import COVERAGE
from rlp.session import Session
from runloop.credential import read_key
from runloop.errors import ConflictError, FailedError, NotFoundError, RefusedError, RunloopError, from_wire
from runloop.exits import Exit
from runloop.quantities import size

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pog.reader import Reader
    from pog.sealed.check import Sealed
    from pog.sealed.rules import Known, Rules
    from pog.sealed.seal import Content

__all__ = ["export_run", "verify_file"]

REEXECUTE_S = 600
"""A stranger's agents may compute for ever; who checks them says how long that is worth waiting for."""


# --- out ------------------------------------------------------------------------------------------


def export_run(
    session: Session, *, run: str, output: str | None, redact: Sequence[str], salt: str | None, preview: bool
) -> Exit:
    """Seal a finished run, and the runs nested in it, into one file.

    Reads the ledger. The daemon is needed only where no head has been signed since the run ended.
    """
    from pog.sealed.rules import classes, parse_rules
    from runloop.sealed.container import SUFFIX

    rules = parse_rules(redact)
    key = _ledger_key(session)
    content, known = _content(session, run, key)
    target = Path(output) if output is not None else Path(f"{content.run[:8]}{SUFFIX}")
    if not preview and target.exists():
        raise _exists(target)
    inside = classes(content, known)
    report: dict[str, Any] = {"run": content.run, "file": None, "inside": inside, "redacted": None}
    data = _pack(content, key)
    if redact:
        content, report["redacted"] = _redact(session, data, content, known, rules, salt)
        data = _pack(content, key)
        report["remains"] = classes(content, known)
    elif inside["secrets"] and not preview:
        raise RefusedError(
            f"the run holds {inside['secrets']} texts that look like secrets",
            hint=f"rlp export-run {content.run} --redact secrets",
            code="seal.secrets",
        )
    if not preview:
        _write(target, data)
        report |= {"file": str(target), "bytes": len(data)}
    _told(session, report)
    return Exit.OK


def _redact(
    session: Session, data: bytes, content: Content, known: Known, rules: Rules, salt: str | None
) -> tuple[Content, dict[str, Any]]:
    """The derived content: told again by a process of its own, on stand-ins, and executed once more."""
    import tempfile

    from pog.sealed.check import opened
    from pog.sealed.rules import needles
    from runloop.digest import blob_digest

    found = [{"text": needle.text, "kind": needle.kind} for needle in needles(content, rules, known)]
    drawn = os.urandom(32).hex() if salt is None else blob_digest(salt.encode())
    with tempfile.TemporaryDirectory(prefix="runloop-export-") as folder:
        exact, derived = Path(folder) / "exact", Path(folder) / "derived"
        exact.write_bytes(data)
        wish = {"needles": found, "rules": rules.named, "salt": drawn, "out": str(derived)}
        made = _process(session, exact, redact=wish)
        return opened(derived.read_bytes()).content, made["redacted"]


def _told(session: Session, report: Mapping[str, Any]) -> None:
    console = session.console
    if session.json:
        console.json(report)
        return
    inside = ", ".join(f"{count} {name}" for name, count in report["inside"].items() if count)
    console.say(f"rlp: in the run: {inside or 'no personal data that is known of'}")
    redacted = report["redacted"]
    if redacted is not None:
        counts: dict[str, int] = {}
        for place in redacted["places"]:
            counts[place["kind"]] = counts.get(place["kind"], 0) + place["places"]
            where = f"event {place['event']}" if "event" in place else f"blob {place['blob'][:16]}"
            console.data(f"  {place['kind']:<7} {place['places']:>4} in {where}")
        for kind, count in redacted["values"].items():
            found = counts.get(kind, 0)
            if not found:
                console.say(f"rlp: nothing of the class {kind} was found")
                continue
            console.say(
                f"rlp: replaced {count} value{'' if count == 1 else 's'} of the class {kind}, "
                f"in {found} place{'' if found == 1 else 's'}"
            )
        console.say(f"rlp: replaced {redacted['hashes']} hashes that could confirm a guess")
        left = ", ".join(f"{count} {name}" for name, count in report["remains"].items() if count)
        console.say(f"rlp: stand-ins or left as they are: {left or 'nothing of these classes'}")
        console.say("rlp: the derived record was executed again: identical")
    if report["file"] is not None:
        console.say(f"rlp: sealed run {report['run']} ({size(report['bytes'])})")
        console.data(report["file"])
    else:
        console.say("rlp: nothing was written")


def _content(session: Session, wish: str, key: Ed25519PrivateKey) -> tuple[Content, Known]:
    """The exact record, and what this home knows that may be in it."""
    from pog.reader import Reader
    from pog.sealed.seal import read_run

    paths = session.paths
    if not paths.events_db.exists():
        raise NotFoundError("this home has no ledger", hint="rlp run OPENING", code="run.absent")
    with closing(Reader(paths.events_db)) as reader:
        run = reader.find_run(wish)

        def read() -> Content:
            return read_run(reader, run, bundles=_bundles(paths.kept_dir), prices=_prices(session))

        try:
            content = read()
        except FailedError as error:
            if error.named_code != "seal.head":
                raise
            session.ask("kb.sign")
            content = read()
        known = _known(session, reader)
    if content.head.public_key != key.public_key().public_bytes_raw().hex():
        raise FailedError(
            "the ledger's head was signed with another key than this home's",
            hint="seal the run in the home whose ledger it is",
            code="seal.key",
        )
    return content, known


def _pack(content: Content, key: Ed25519PrivateKey) -> bytes:
    from pog.sealed.seal import pack
    from runloop import __version__

    return pack(content, build=__version__, key=key)


def _known(session: Session, reader: Reader) -> Known:
    """The people and the secrets this home knows of."""
    import pwd
    import tomllib

    from pog.sealed.rules import Known
    from runloop.events import ContactUpserted

    names: set[str] = set()
    phones: set[str] = set()
    for event in reader.events(kinds=(ContactUpserted.kind,)):
        contact = event.payload
        if isinstance(contact, ContactUpserted):
            names |= {contact.name, *contact.nicknames}
            phones |= {*contact.phones}
    # The way to a file says who its owner is.
    names |= {pwd.getpwuid(os.getuid()).pw_name, Path.home().name}
    secrets: set[str] = set()
    with suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        stored = tomllib.loads((session.paths.home / "secrets.toml").read_text())
        secrets |= {*_texts(stored)}
    secrets |= {held for name in session.config.key_variables() if (held := session.environ.get(name))}
    secrets |= _stored(session, reader)
    return Known(secrets=sorted(secrets), names=sorted(names), phones=sorted(phones))


def _stored(session: Session, reader: Reader) -> set[str]:
    """The secrets of the encrypted file, and those a keyring was given."""
    from runloop.events import SecretSet
    from runloop.secretfile import SecretFileError, unseal

    found: set[str] = set()
    home, keys = session.paths.home, session.paths.keys_dir
    # What cannot be opened cannot be looked for; what looks like a key is found all the same.
    with suppress(FileNotFoundError, SecretFileError, UnicodeDecodeError):
        sealed = (home / "secrets.age").read_bytes()
        found |= {*unseal(sealed, (keys / "secrets.key").read_text()).values()}
    facts = (event.payload for event in reader.events(kinds=(SecretSet.kind,)))
    names = {fact.name for fact in facts if isinstance(fact, SecretSet) and fact.store == "keyring"}
    if names:
        with suppress(Exception):  # backends raise whatever they like
            import keyring

            found |= {value for name in names if (value := keyring.get_password("runloop", name))}
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for item in value.values() for text in _texts(item)] if isinstance(value, dict) else []


def _ledger_key(session: Session) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = read_key(session.paths.keys_dir / "ledger.key")
    if secret is None:
        raise NotFoundError(
            "this home has no ledger key to seal with", hint="seal the run where it was made", code="seal.key"
        )
    return Ed25519PrivateKey.from_private_bytes(secret)


def _bundles(kept: Path) -> Any:
    """Bundles by digest: those this home keeps, then those that came with the distribution."""
    from runloop.bundle.digest import bundle_digest, read_bundle
    from runloop.config import shipped

    shipped_files: dict[str, dict[str, bytes]] = {}

    def find(digest: str) -> Mapping[str, bytes] | None:
        with suppress(RunloopError):
            files = read_bundle(kept / digest)
            if bundle_digest(files) == digest:
                return files
        if not shipped_files:
            for folder in sorted(shipped("agents").iterdir()):
                with suppress(RunloopError):
                    found = read_bundle(folder)
                    shipped_files[bundle_digest(found)] = found
        return shipped_files.get(digest)

    return find


def _prices(session: Session) -> Any:
    """What the configuration says of a price version today; None where it says something else by now."""
    providers = session.config.models.providers

    def find(name: str, version: str) -> Mapping[str, int] | None:
        price = providers[name].price if name in providers else None
        if name == version == "rules":
            return {"input_micro_usd_per_mtok": 0, "output_micro_usd_per_mtok": 0}
        return price._asdict() if price is not None and price.version == version else None

    return find


def _write(target: Path, data: bytes) -> None:
    """All of it or nothing; never over something else."""
    passing = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        opened = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(opened, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(passing, target)
        finally:
            passing.unlink()
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError as error:
        raise FailedError(
            f"{target} cannot be written: {error.strerror}",
            hint="name another place with -o",
            code="seal.write",
        ) from error


def _exists(target: Path) -> ConflictError:
    return ConflictError(
        f"{target} exists", hint="name another file with -o, or remove that one", code="seal.exists"
    )


# --- in -------------------------------------------------------------------------------------------


def verify_file(
    session: Session, path: Path, *, reexecute: bool, key: str | None, limit_s: int = REEXECUTE_S
) -> Exit:
    """Check a sealed run byte by byte; with ``reexecute``, execute it again. Exit 6 when anything differs."""
    from pog.sealed.check import examine, fingerprint
    from runloop.bundle.digest import read_plain
    from runloop.sealed.container import MAX_SEALED_BYTES

    data = read_plain(path, MAX_SEALED_BYTES)
    examined = examine(data)
    report: dict[str, Any] = {
        "file": str(path),
        "ok": examined.sealed is not None,
        "findings": [finding.to_json() for finding in examined.findings],
        "sealed": None if examined.sealed is None else _facts(examined.sealed),
        "reexecution": None,
    }
    named = None
    if examined.sealed is not None:
        print_ = fingerprint(examined.sealed.key)
        named = None if key is None else _hex(key) in (_hex(print_), examined.sealed.key)
        if named is False:
            what = f"it is sealed with the key {print_}, not with {key}"
            report["findings"].append({"what": what, "member": "signature.json"})
            report["ok"] = False
        elif reexecute:
            report["reexecution"] = _process(session, path, limit_s=limit_s)["report"]
            report["ok"] = bool(report["reexecution"]["identical"])
    if session.json:
        session.console.json(report)
    else:
        _show(session, report, named)
    return Exit.OK if report["ok"] else Exit.DIVERGED


def _hex(key: str) -> str:
    return key.replace(":", "").lower()


def _facts(sealed: Sealed) -> dict[str, Any]:
    from pog.sealed.check import fingerprint

    manifest = sealed.manifest
    return {
        "run": manifest.run,
        "opening": manifest.opening,
        "outcome": manifest.outcome,
        "runs": len(manifest.runs),
        "events": manifest.events,
        "blobs": len(sealed.content.blobs),
        "agents": [f"{agent.name} {agent.version}" for agent in manifest.agents],
        "key": fingerprint(sealed.key),
        "head": {"id": manifest.head.id, "hash": manifest.head.hash},
        "redacted": manifest.redacted,
    }


def _process(
    session: Session, file: Path, *, redact: Mapping[str, Any] | None = None, limit_s: int = REEXECUTE_S
) -> dict[str, Any]:
    """Have ``runloopd.verify`` do something, in a process that has no home and inherits no settings."""
    import msgspec

    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    wish: dict[str, Any] = {"file": str(file.absolute()), "redact": redact, "cache": _compiled(session)}
    try:
        # The folder is removed here: a process that has to be killed leaves its own behind.
        with tempfile.TemporaryDirectory(prefix="rlp-verify-", ignore_cleanup_errors=True) as scratch:
            done = subprocess.run(
                [sys.executable, "-I", "-m", "runloopd.verify"],
                input=msgspec.json.encode(wish),
                capture_output=True,
                cwd="/",
                env=kept | {"TMPDIR": scratch},
                timeout=limit_s,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise FailedError(
            f"the re-execution was not over after {limit_s} s, and was stopped",
            hint="--timeout SECONDS waits longer",
            code="verify.deadline",
        ) from error
    try:
        answer = msgspec.json.decode(done.stdout)
    except msgspec.DecodeError as error:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise FailedError(
            f"the re-execution ended with code {done.returncode}" + (f": {said[-1][:300]}" if said else ""),
            hint="'rlp doctor' looks for causes",
            code="verify.process",
        ) from error
    if "error" in answer:
        raise from_wire(answer["error"])
    made: dict[str, Any] = answer
    return made


def _compiled(session: Session) -> dict[str, str] | None:
    """What this home's daemon has compiled, to spare the time; None where there is no home."""
    with suppress(RunloopError, OSError):
        paths = session.home
        if (key := read_key(paths.keys_dir / "cache.key")) is not None:
            return {"folder": str(paths.cache_dir), "key": key.hex()}
    return None


def _show(session: Session, report: Mapping[str, Any], named: bool | None) -> None:
    console = session.console
    for finding in report["findings"]:
        console.data(f"BAD  {_place(finding)}: {finding['what']}", "red")
    sealed = report["sealed"]
    if sealed is None:
        console.data(f"damaged  {report['file']}", "red")
        return
    console.data(f"sealed   {report['file']}", "green" if report["ok"] else "yellow")
    nested = f", {sealed['runs'] - 1} nested" if sealed["runs"] > 1 else ""
    console.data(f"  run      {sealed['run']}, {sealed['opening']}, {sealed['outcome']}{nested}")
    console.data(
        f"  holds    {sealed['events']} events, {sealed['blobs']} blobs, {', '.join(sealed['agents'])}"
    )
    advice = "compare it with what the sender tells you"
    if named is not None:
        advice = "the one you named" if named else "not the one you named"
    console.data(f"  key      {sealed['key']}; {advice}")
    if sealed["redacted"] is None:
        console.data(f"  head     #{sealed['head']['id']} {sealed['head']['hash'][:16]}, signed")
    else:
        console.data(f"  redacted a derived record; the original's head was #{sealed['head']['id']}")
    again = report["reexecution"]
    if again is None:
        console.note("rlp: nothing was executed; --reexecute does it all again")
        return
    divergence = again.get("divergence")
    if divergence:
        console.data(f"diverged  {divergence.get('code')} at {divergence.get('where')}", "red")
        console.data(f"  expected {divergence.get('expected')}")
        console.data(f"  actual   {divergence.get('actual')}")
    else:
        same = bool(again["identical"])
        console.data("identical" if same else "not fully covered", "green" if same else "yellow")
    coverage = again.get("coverage") or {}
    console.data("  " + " / ".join(f"{coverage.get(name, 0)} {words}" for name, words in COVERAGE))
    for gap in again.get("gaps") or ():
        console.data(f"  {gap}", "yellow")


def _place(finding: Mapping[str, Any]) -> str:
    parts = [finding.get("member") or "the file"]
    for name, words in (("event", "event"), ("column", "column"), ("blob", "blob"), ("offset", "byte")):
        if finding.get(name) is not None:
            parts.append(f"{words} {finding[name]}")
    return ", ".join(parts)
