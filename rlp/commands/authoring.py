"""``rlp agent scaffold|lint|build|sign|test``: what an author does before anybody installs anything.

Knows: which step asks the daemon (describing tools and trying an agent in the sandbox; nothing else), and how
outcomes are shown. Does not know: how folders are read, built or judged (``runloop.authoring``), or formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlp.install import hand_over
from rlp.session import Session
from runloop.errors import FailedError, NotFoundError, UnreachableError, UsageError
from runloop.exits import Exit
from runloop.quantities import size

if TYPE_CHECKING:
    from runloop.authoring.build import Draft
    from runloop.authoring.cases import Case, Outcome
    from runloop.authoring.findings import LintFinding
    from runloop.bundle.signature import SigningKey

__all__ = ["build", "bundle_of", "lint", "scaffold", "sign", "test"]


def scaffold(session: Session, *, name: str, lang: str, dir: str | None) -> Exit:
    """Write a new agent's folder."""
    from runloop.authoring.scaffold import scaffold as write

    target = Path(dir) if dir else Path(name)
    files = write(name, lang, target)
    if session.json:
        session.console.json({"name": name, "language": lang, "dir": str(target), "files": files})
        return Exit.OK
    for file in files:
        session.console.data(f"{target}/{file}")
    session.console.say(f"next: cd {target} && rlp agent test")
    return Exit.OK


def lint(session: Session, *, folder: str | None) -> Exit:
    """Report everything that is wrong with a folder, errors and warnings."""
    from runloop.authoring.lint import lint as look
    from runloop.authoring.single import check_single, is_single

    path = _folder(folder)
    findings = check_single(path) if is_single(path) else look(path)[1]
    errors = [finding for finding in findings if finding.severity == "error"]
    if session.json:
        for finding in findings:
            session.console.json(finding.to_json())
    else:
        for finding in findings:
            warning = "warning: " if finding.severity == "warning" else ""
            session.console.data(
                f"{finding.place}: {warning}{finding.what}; {finding.fix}",
                "yellow" if warning else "red",
            )
        if not findings:
            session.console.say("nothing to mend")
    return Exit.USAGE if errors else Exit.OK


# --- build and sign -------------------------------------------------------------------------------


def build(
    session: Session,
    *,
    folder: str | None,
    output: str | None,
    key: str | None,
    dev_key: bool,
    no_describe: bool,
) -> Exit:
    """Make the bundle of a folder; sign it when asked to."""
    signer = _signer(session, key, dev_key)
    made, data = _built(session, _folder(folder), signer, describe=not no_describe)
    target = Path(output) if output else Path(made.archive_name)
    _write(target, data)
    _tell(session, target, data, signer, dev_key)
    return Exit.OK


def bundle_of(session: Session, path: Path, *, dev: bool) -> tuple[Draft, bytes]:
    """The bundle of a folder, its tools described; with ``dev`` signed with this home's own key."""
    return _built(session, path, _signer(session, None, dev), describe=True)


def _built(session: Session, path: Path, signer: SigningKey | None, *, describe: bool) -> tuple[Draft, bytes]:
    from runloop.authoring.build import draft

    made = draft(path)
    _warn(session, made.warnings)
    if describe and _may_have_tools(path, made):
        made = _completed(session, made)
    data = made.package()
    return made, data if signer is None else _signed(data, signer)


def sign(session: Session, *, bundle: str, key: str | None, dev_key: bool) -> Exit:
    """Put a signature under a bundle; one that is there is replaced."""
    signer = _signer(session, key, dev_key)
    if signer is None:
        raise UsageError(
            "no key is named", hint=f"'rlp agent sign {bundle} --dev-key', or --key FILE", code="cli.argument"
        )
    target = Path(bundle)
    data = _signed(_archive(target), signer)
    _write(target, data)
    _tell(session, target, data, signer, dev_key)
    return Exit.OK


def _signer(session: Session, key: str | None, dev_key: bool) -> SigningKey | None:
    from runloop.bundle import keyfile

    if key and dev_key:
        raise UsageError("--key and --dev-key are two keys", hint="give one of them", code="cli.argument")
    if dev_key:
        return keyfile.dev_key(session.home.keys_dir)
    return keyfile.read_key(Path(key)) if key else None


def _signed(data: bytes, signer: SigningKey) -> bytes:
    """The archive with its statements signed; refused unless they speak of what is in it."""
    from runloop.bundle.archive import unpack
    from runloop.bundle.manifest import parse_manifest
    from runloop.bundle.statement import read_statements, sign_package

    package = unpack(data)
    claim = read_statements(package.envelopes)
    manifest = parse_manifest(package.files.get("manifest.toml", b""))
    if (claim.name, claim.version, claim.variant) != (manifest.name, manifest.version, manifest.variant):
        raise UsageError(
            f"the bundle claims {claim.name} {claim.version} and holds {manifest.name} {manifest.version}",
            hint="build it again with 'rlp agent build'",
            code="statement.invalid",
        )
    return sign_package(package, signer)


def _archive(path: Path) -> bytes:
    from runloop.bundle.archive import MAX_ARCHIVE_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_ARCHIVE_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"there is no bundle at {path}", hint="'rlp agent build' makes one", code="bundle.missing"
        ) from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", code="bundle.missing") from error


def _write(target: Path, data: bytes) -> None:
    """The whole file or none."""
    import os
    import tempfile

    try:
        number, fresh = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(number, "wb") as file:
                os.fchmod(number, 0o644)
                file.write(data)
            Path(fresh).replace(target)
        except BaseException:
            Path(fresh).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FailedError(
            f"{target} cannot be written: {error.strerror}", hint="give another -o FILE", code="bundle.write"
        ) from error


def _tell(session: Session, target: Path, data: bytes, signer: SigningKey | None, dev: bool) -> None:
    from runloop.bundle.archive import unpack

    package = unpack(data)  # what was written is what can be read
    key = None if signer is None else signer.key_id
    if session.json:
        session.console.json(
            {
                "file": str(target),
                "bytes": len(data),
                "bundle_digest": package.bundle_digest,
                "sha256": package.tar_sha256,
                "signed": key,
                "dev": dev,
                "files": list(package.files),
            }
        )
        return
    session.console.data(str(target))
    session.console.say(f"{size(len(data))}, {len(package.files)} files, bundle {package.bundle_digest[:16]}")
    if key is None:
        session.console.say(
            f"not signed, so nobody can install it; 'rlp agent sign {target} --dev-key'", "yellow"
        )
    else:
        session.console.say(f"signed by {key}{' (dev)' if dev else ''}")
        install = " --dev-key" if dev else ""
        session.console.say(f"next: rlp agent install{install} {target}")


# --- what only the sandbox can tell ---------------------------------------------------------------


def _may_have_tools(path: Path, made: Draft) -> bool:
    """Whether it is worth asking the agent: a Python agent without ``@tool`` has none."""
    if made.language in ("config", "plugin"):
        return False  # their tools are what the file says
    if made.language != "python":
        return True
    from runloop.authoring.toolchains.python import decorated

    return decorated(path)


def _completed(session: Session, made: Draft) -> Draft:
    """The draft with the tools that the agent describes in the sandbox."""
    try:
        (answer,) = _tried(session, made.package(), [{"op": "describe"}])
    except UnreachableError as error:
        raise UnreachableError(
            f"{made.manifest.name} describes its tools in the sandbox, and no daemon runs: {error.message}",
            hint="see 'rlp doctor'; or build with --no-describe, which leaves tools.json as it is",
            code=error.named_code,
        ) from error
    if answer["ok"]:
        return made.completed(answer["output"])
    if answer["code"] == "abi.op":
        session.console.detail("the agent does not describe itself; tools.json is taken as it is")
        return made
    raise FailedError(
        f"the agent failed when it was asked for its tools: {answer['code']}: {answer['message']}",
        hint="'rlp agent test' shows more",
        code="agent.describe",
    )


def _tried(session: Session, data: bytes, cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Have the daemon try the bundle; one outcome for each case."""
    upload = hand_over(session, data)
    done = session.ask_compiling("agents.try", upload=upload, cases=[dict(case) for case in cases])
    outcomes: list[dict[str, Any]] = done["cases"]
    return outcomes


# --- test -----------------------------------------------------------------------------------------


def test(session: Session, *, folder: str | None, sandbox_only: bool) -> Exit:
    """Run the author's unit tests, then every case against the fake host and in the real sandbox."""
    from runloop.authoring.build import draft
    from runloop.authoring.lint import lint as look
    from runloop.authoring.native import run_native
    from runloop.authoring.toolchains import toolchain

    path = _folder(folder)
    made = draft(path)
    _warn(session, made.warnings)
    if path.is_file():
        raise UsageError(
            f"{path.name} has no cases to run",
            hint=f"'rlp agent lint {path.name}' checks it; 'rlp dev {path.name}' serves it as you write",
            code="agent.cases",
        )
    cases = look(path)[0].cases
    report: dict[str, Any] = {"agent": made.manifest.name, "unit": None, "cases": []}
    unit = None if sandbox_only else run_native(path, toolchain(made.language), cases, session.environ)
    if unit is not None:
        report["unit"] = {"ok": unit.ok, "output": unit.output}
        _show_unit(session, unit.ok, unit.output)
    fakes = None if sandbox_only else _faked(session, path, made, cases)
    reals = _tried(session, made.package(), [_asked(case) for case in cases]) if cases else []
    report["cases"] = [
        _judged(case, None if fakes is None else fakes[number], reals[number])
        for number, case in enumerate(cases)
    ]
    report["ok"] = (unit is None or unit.ok) and all(case["ok"] for case in report["cases"])
    _show_report(session, report)
    return Exit.OK if report["ok"] else Exit.FAILED


def _faked(session: Session, path: Path, made: Draft, cases: Sequence[Case]) -> list[Outcome] | None:
    """Outcomes against the fake host; None for languages whose own tests do that."""
    from runloop.authoring.native import run_cases

    if made.language != "python" or not cases:
        return None
    return run_cases(path, cases, made.manifest.name, session.environ)


def _asked(case: Case) -> dict[str, Any]:
    return {key: value for key, value in case.to_json().items() if key != "expect"}


def _judged(case: Case, fake: Outcome | None, real: Mapping[str, Any]) -> dict[str, Any]:
    from runloop.authoring.cases import Outcome, differences

    found = Outcome(
        ok=real["ok"],
        ports=real.get("ports", {}),
        code=real.get("code", ""),
        message=real.get("message", ""),
        unscripted=tuple(real.get("unscripted", ())),
    )
    wrong = differences(case.expect, found)
    if wrong:
        wrong += [f"the gate refused {d['op']}: {d['code']}: {d['message']}" for d in real.get("denied", ())]
    judged: dict[str, Any] = {"name": case.name, "line": case.line, "fake": None}
    if fake is not None:
        amiss = differences(case.expect, fake)
        judged["fake"] = {"ok": not amiss, "differences": amiss}
    figures = {key: real.get(key) for key in ("fuel", "calls", "ms", "denied")}
    judged["sandbox"] = {"ok": not wrong, "differences": wrong, **figures}
    judged["ok"] = not wrong and (fake is None or judged["fake"]["ok"])
    return judged


def _show_unit(session: Session, ok: bool, output: str) -> None:
    if session.json:
        return
    session.console.data(f"unit tests: {'ok' if ok else 'FAILED'}", "green" if ok else "red")
    if not ok or session.console.style.verbose:
        session.console.text(output.rstrip())


def _show_report(session: Session, report: Mapping[str, Any]) -> None:
    if session.json:
        session.console.json(report)
        return
    rows = [
        {
            "case": case["name"],
            "fake": None if case["fake"] is None else _word(case["fake"]["ok"]),
            "sandbox": _word(case["sandbox"]["ok"]),
            "fuel": case["sandbox"]["fuel"],
            "calls": case["sandbox"]["calls"],
            "ms": case["sandbox"]["ms"],
        }
        for case in report["cases"]
    ]
    session.console.rows(
        rows,
        ("case", "fake", "sandbox", "fuel", "calls", "ms"),
        empty="there are no cases: write tests/cases.toml",
    )
    for case in report["cases"]:
        for where in ("fake", "sandbox"):
            for difference in (case[where] or {}).get("differences", ()):
                session.console.data(f"{case['name']} ({where}): {difference}", "red")
    session.console.say("all is well" if report["ok"] else "something failed")


def _word(ok: bool) -> str:
    return "ok" if ok else "FAILED"


# --- small hands ----------------------------------------------------------------------------------


def _folder(given: str | None) -> Path:
    """What is meant: a folder, or the one file that is an agent. A plugin's folder means its manifest."""
    from runloop.authoring.lint import MANIFEST
    from runloop.bundle.plugin import PLUGIN_FILE

    path = Path(given or ".").resolve()
    plugin = path / PLUGIN_FILE
    return plugin if plugin.is_file() and not (path / MANIFEST).exists() else path


def _warn(session: Session, warnings: Sequence[LintFinding]) -> None:
    for warning in warnings:
        session.console.say(f"rlp: {warning.place}: warning: {warning.what}; {warning.fix}", "yellow")
