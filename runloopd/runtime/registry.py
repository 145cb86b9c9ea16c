"""Which agents may be started, and which exact bytes each of them is.

Knows: where agents lie, which bundles are pinned or installed, how ``agent:name[@variant|@version]`` is
resolved, what a bundle must hold. Does not know: how a bundle comes to be installed (``runtime.installer``),
how an agent is compiled or run, or what the operator leaves of its rights.

Trust comes first, place second: a shipped agent is itself or nothing, an installed one is the bytes that its
fact in the ledger names or nothing, and only then come folders nobody vouches for, where the operator allows
them. No name of the first two is ever served from a folder.

A bundle is read once per question, and its digest, manifest, policy and code come from those same bytes:
there is no moment between check and use. Nothing is cached, so that a file changed on disk is noticed at the
next attempt.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

from openings.definition import PortSpec as OpeningPort
from openings.definition import PortTable
from runloop.bundle.config_agent import is_config_agent, read_config_agent
from runloop.bundle.digest import BundleError, bundle_digest, read_bundle, read_plain
from runloop.bundle.installed import Installation, Installations
from runloop.bundle.manifest import (
    MAX_MANIFEST_BYTES,
    Finding,
    Manifest,
    ManifestError,
    check_values,
    parse_manifest,
)
from runloop.bundle.tools import Tool, parse_tools
from runloop.caps.policy import Policy, ceiling, parse_policy
from runloop.digest import blob_digest
from runloop.errors import (
    ConflictError,
    DivergenceError,
    FailedError,
    NotFoundError,
    RefusedError,
    RunloopError,
    UsageError,
)
from runloop.events import AgentPin
from runloop.spelling import did_you_mean
from runloopd.runtime.library import library_digest, library_source, read_library, served_beside
from runloopd.runtime.orders import MIB, GuestLimits
from runloopd.runtime.seen import Seen

__all__ = [
    "INTERPRETED",
    "AgentReference",
    "AgentRefusedError",
    "InstalledAgent",
    "Refusal",
    "Registry",
    "read_pins",
]

MANIFEST = "manifest.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreted:
    """A language whose agents are source: one shipped runner component executes them."""

    suffix: str
    package: str = ""
    """File that stands for its folder, without the suffix."""
    dotted: bool = True
    """Modules are called ``a.b``; False: by their paths, ``a/b.js``."""


INTERPRETED: Mapping[str, Interpreted] = {
    "python": Interpreted(suffix=".py", package="__init__"),
    "javascript": Interpreted(suffix=".js", dotted=False),
}
"""Every language that has a runner; agents of any other bring a component of their own."""

Origin = Literal["shipped", "installed", "folder"]


class AgentRefusedError(RefusedError):
    """The agent is here, and will not be started: not pinned, altered, or not a valid bundle."""

    code: ClassVar[str] = "agent.refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class AgentReference:
    """``agent:name``, ``agent:name@variant`` or ``agent:name@1.2.3``, taken apart."""

    name: str
    selector: str | None = None
    """A variant or a version; None means the variant ``default``."""

    @classmethod
    def parse(cls, use: str) -> AgentReference:
        """The ``agent:`` may be left out. Raises :class:`UsageError` for anything else."""
        name, at, selector = use.removeprefix("agent:").partition("@")
        plain = name.replace("_", "a")
        if not (plain.isalnum() and plain.isascii() and plain == plain.lower() and plain[:1].isalpha()) or (
            at and not selector
        ):
            raise UsageError(
                f"{use!r} is not a reference to an agent",
                hint="write agent:name, agent:name@variant or agent:name@1.2.3",
                code="agent.reference",
            )
        return cls(name=name, selector=selector or None)

    def matches(self, manifest: Manifest) -> bool:
        """Whether the manifest's agent is meant."""
        if self.name != manifest.name:
            return False
        if self.selector is None:
            return manifest.variant == "default"
        return self.selector in (manifest.variant, manifest.version)

    def __str__(self) -> str:
        return f"agent:{self.name}" + (f"@{self.selector}" if self.selector else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class InstalledAgent:
    """One agent, complete and checked: everything an attempt needs."""

    manifest: Manifest
    dir: Path
    bundle_digest: str
    pin: AgentPin
    pinned: bool
    """Its digest stands in the distribution's pins; False only where unsigned agents are allowed."""
    origin: Origin = "folder"
    """Who vouches: the distribution's pins, a fact in the ledger, or nobody."""
    installation: Installation | None = None
    """The fact that it was installed by, where it was."""
    policy_text: str
    policy: Policy
    """Its ``policy.caps``; the operator and the token narrow it further."""
    component_path: Path | None
    """Its own component; None: the shared runner executes ``modules``."""
    modules: dict[str, str] | None
    """Source by module name, of a language that has a runner; None for a component."""
    beside: frozenset[str] = frozenset()
    """Those of its modules that are not of its bundle: ``runtime.library`` serves them."""
    limits: GuestLimits
    tools: tuple[Tool, ...] = ()
    """What its ``tools.json`` offers it."""

    @property
    def dev(self) -> bool:
        """Signed by nobody but this home's development key: to be shown wherever the agent is."""
        return self.installation is not None and self.installation.dev

    @property
    def ceiling(self) -> Policy:
        """The most its manifest's host calls could ever need."""
        return ceiling(self.manifest.ops)

    @property
    def ports(self) -> PortTable:
        """Its ports, as an opening is checked against them."""
        return PortTable(in_=_ports(self.manifest.inputs), out=_ports(self.manifest.outputs))

    def input_faults(self, ports: Mapping[str, Any]) -> list[str]:
        """What is wrong with ``{port: [value…]}`` on its way in, in words."""
        return check_values(self.manifest.inputs, ports, direction="input")

    def output_faults(self, ports: Mapping[str, Any]) -> list[str]:
        """What is wrong with ``{port: [value…]}`` on its way out, in words."""
        return check_values(self.manifest.outputs, ports, direction="output")

    def to_json(self) -> dict[str, Any]:
        """For ``agents.list``."""
        return {
            **self.manifest.to_json(),
            "dir": str(self.dir),
            "bundle_digest": self.bundle_digest,
            "component_digest": self.pin.component_digest,
            "pinned": self.pinned,
            "origin": self.origin,
            "dev": self.dev,
            "publisher": self.installation.publisher if self.installation else None,
            "key": self.installation.key if self.installation else None,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """A place that holds an agent which is not started, and why."""

    place: str
    name: str
    """As its manifest says, or else as its folder is called."""
    reason: str
    hint: str | None

    def to_json(self) -> dict[str, Any]:
        """For ``agents.list`` and ``doctor``."""
        return {"place": self.place, "name": self.name, "reason": self.reason, "hint": self.hint}


_DIGEST = re.compile(r"[0-9a-f]{64}")

Objection = Callable[[Installation], RunloopError | None]
"""Asked at every start: why an installed agent must not run any more (its key was revoked), or None."""


def _none(_: Installation) -> RunloopError | None:
    return None


class Registry:
    """Finds agents: pinned and unsigned ones in ``dirs``, first hit first, installed ones in ``kept``.

    ``pins`` are the digests of the bundles that came with this distribution; a pinned bundle may lie in any
    of the ``dirs``. ``installed`` is what the ledger says, and changes while the daemon lives. Any other
    bundle is refused unless ``allow_unsigned``; a name that is shipped or installed is never given to it,
    whatever is allowed.
    ``runners`` are the digests of the components that execute source, by language. ``kept`` holds, by digest,
    every bundle that is installed, and a copy of every bundle a run was started with, so that the run
    outlives changes of its agents.
    """

    def __init__(
        self,
        dirs: Sequence[Path],
        *,
        pins: Mapping[str, str],
        runners: Mapping[str, str],
        allow_unsigned: bool = False,
        kept: Path | None = None,
        installed: Installations | None = None,
        objection: Objection = _none,
        seen: Seen[InstalledAgent] | None = None,
    ) -> None:
        """``seen``: readings shared with another registry that has the same pins and runners."""
        self._dirs = tuple(dirs)
        self._trusted = {digest: name for name, digest in pins.items()}
        self._shipped = frozenset(pins)
        self._runners = dict(runners)
        self._allow_unsigned = allow_unsigned
        self._kept = kept
        self._installed = installed if installed is not None else Installations()
        self._objection = objection
        self._seen = seen if seen is not None else Seen()

    @property
    def shipped(self) -> frozenset[str]:
        """Names nobody else can have."""
        return self._shipped

    def keep(self, agent: InstalledAgent) -> None:
        """Copy the agent's bundle to the kept ones, all of it or nothing. Does nothing when it is there.

        Raises :class:`ConflictError` when its files changed since it was resolved, :class:`FailedError` when
        the copy cannot be written.
        """
        if self._kept is None or (self._kept / agent.bundle_digest).is_dir():
            return
        files = _bundle(agent.dir)
        if bundle_digest(files) != agent.bundle_digest:
            raise ConflictError(
                f"the agent {agent.manifest.name} was changed just now",
                hint="try again",
                code="agent.changed",
            )
        try:
            self._kept.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=self._kept, prefix=".new-") as fresh:
                copy = Path(fresh) / "bundle"
                for name, data in files.items():
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    (copy / name).write_bytes(data)
                with contextlib.suppress(FileExistsError):
                    copy.rename(self._kept / agent.bundle_digest)
        except OSError as error:
            raise FailedError(
                f"the bundle of {agent.manifest.name} cannot be kept in {self._kept}: {error.strerror}",
                hint="make room, or make the directory writable",
                code="agent.keep",
            ) from error

    def keep_library(self) -> None:
        """Keep the sources that are served to agents now; does nothing when they are kept already."""
        if self._kept is None:
            return
        place = self._library_path(library_digest())
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not place.exists():
                with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".new-", delete=False) as fresh:
                    fresh.write(library_source())
                Path(fresh.name).replace(place)
        except OSError as error:
            raise FailedError(
                f"the library of agents cannot be kept in {place.parent}: {error.strerror}",
                hint="make room, or make the directory writable",
                code="agent.keep",
            ) from error

    def has_library(self, named: str) -> bool:
        """Whether agents can be served what this digest names."""
        if named == library_digest():
            return True
        if self._kept is None or _DIGEST.fullmatch(named) is None:
            return False
        return self._library_path(named).is_file()

    def _library_path(self, named: str) -> Path:
        assert self._kept is not None
        return self._kept.parent / "libraries" / f"{named}.json"

    def _as_served(self, agent: InstalledAgent, library: str | None) -> InstalledAgent:
        """The agent with the library that it had in the run that pinned it."""
        if library is None or library == library_digest() or not agent.beside:
            return agent
        if not self.has_library(library):
            raise NotFoundError(
                f"{agent.manifest.name} uses {', '.join(sorted(agent.beside))} as another Runloop served it "
                f"(library {library[:12]}, here {library_digest()[:12]}), and that is not kept here",
                hint="use the build of Runloop that made the run",
                code="agent.library",
            )
        kept = read_library(self._library_path(library).read_bytes(), library)
        modules = {name: text for name, text in (agent.modules or {}).items() if name not in agent.beside}
        return replace(agent, modules=served_beside(modules, kept))

    def beside(self, folder: Path) -> Registry:
        """The same registry, looking first in ``folder``: the ``agents`` of where a user stands."""
        return Registry(
            [folder, *self._dirs],
            pins={name: digest for digest, name in self._trusted.items()},
            runners=self._runners,
            allow_unsigned=self._allow_unsigned,
            kept=self._kept,
            installed=self._installed,
            objection=self._objection,
            seen=self._seen,
        )

    def resolve(self, use: str) -> InstalledAgent:
        """The agent a node's ``use`` means, ready to start.

        Raises :class:`NotFoundError`, or says what is wrong with the only bundles that were found.
        """
        reference = AgentReference.parse(use)
        if reference.name not in self._shipped and self._installed.is_installed(reference.name):
            return self._resolve_installed(reference)
        refused: RunloopError | None = None
        for folder in self._folders():
            try:
                agent = self._read(folder)
            except RunloopError as error:
                # A broken bundle only matters to those who ask for it: by its manifest, or else by its name.
                if _may_mean(folder, reference):
                    refused = refused or error
                continue
            if not reference.matches(agent.manifest):
                continue
            if self._is_startable(agent):
                return agent
            if self._allow_unsigned:
                # The operator means to run what lies here: do not silently run something else instead.
                raise self._refusal(agent)
            refused = refused or self._refusal(agent)
        if refused is not None:
            raise refused
        names = self._names()
        meant = did_you_mean(reference.name, names, "")
        raise NotFoundError(
            f"there is no {reference}",
            hint=f"{meant} installed: {', '.join(names) or 'none'}".lstrip(),
            code="agent.unknown",
        )

    def _resolve_installed(self, reference: AgentReference) -> InstalledAgent:
        """The bytes the ledger names, or the reason why not; never another bundle instead."""
        if self._allow_unsigned:
            # The operator means to run what lies here: do not silently run something else instead.
            for folder in self._folders():
                if _may_mean(folder, reference):
                    raise self._takes_name(folder, reference.name, "installed")
        variants = [one for one in self._installed if one.name == reference.name]
        for one in variants:
            selector = reference.selector or "default"
            if selector in (one.variant, one.version):
                return self._installed_agent(one)
        kept = [one.version for each in variants for one in self._installed.kept(each.name, each.variant)]
        raise NotFoundError(
            f"there is no agent {reference}; installed of it: "
            + ", ".join(f"{one.version} ({one.variant})" for one in variants),
            hint=f"it is kept, and no longer current: 'rlp agent rollback {reference.name}'"
            if reference.selector in kept
            else f"'rlp agent show {reference.name}' lists its versions",
            code="agent.unknown",
        )

    def _installed_agent(self, one: Installation) -> InstalledAgent:
        """An installed agent, its bytes checked now. Raises why it is not started."""
        objection = self._objection(one)
        if objection is not None:
            raise objection
        return self.stored(one)

    def stored(self, one: Installation) -> InstalledAgent:
        """A bundle that is or was installed, whoever objects to it; its bytes are checked all the same.

        Raises :class:`AgentRefusedError` when they are missing or not the ones that were installed.
        """
        assert self._kept is not None, "without a place to keep them nothing is installed"
        try:
            agent = self._read(self._kept / one.bundle, installation=one)
        except RunloopError as error:
            if error.named_code == "runner.missing":
                raise  # the bundle is as it was; this Runloop is another
            raise _altered(one, error.message) from error
        if agent.bundle_digest != one.bundle:
            raise _altered(one, f"its files add up to {agent.bundle_digest[:12]}")
        return agent

    def object_to(self, pin: AgentPin) -> None:
        """Raise what is now said against an agent that is about to act."""
        installation = self._installed.of_bundle(pin.bundle_digest)
        if installation is not None and (objection := self._objection(installation)) is not None:
            raise objection

    def pinned(self, pin: AgentPin, *, serving: bool = True, library: str | None = None) -> InstalledAgent:
        """Exactly the agent a run pinned, its bytes checked again now.

        ``serving``: it is about to act, so whoever objects to it is heard; False to repeat what it did.
        ``library``: digest of the modules that the run's agents were served beside their own, where it says
        so. Raises :class:`NotFoundError` when no such bundle or library is left, :class:`DivergenceError`
        when it was pinned with another runner or component than the present one.
        """
        if serving:
            self.object_to(pin)
        kept = [] if self._kept is None else [self._kept / pin.bundle_digest]
        for folder in chain(kept, self._folders()):
            try:
                agent = self._read(folder)
            except RunloopError:
                continue
            vouched = folder in kept or self._is_startable(agent)
            if agent.bundle_digest != pin.bundle_digest or not vouched:
                continue
            if agent.pin != pin:
                raise DivergenceError(
                    f"{pin.name} {pin.version} was pinned with another component than the present one",
                    hint="replay with the build of Runloop that made the run",
                    code="agent.component",
                    expected=pin.component_digest,
                    actual=agent.pin.component_digest,
                )
            return self._as_served(agent, library)
        raise NotFoundError(
            f"the agent {pin.name} {pin.version} of this run was changed or removed "
            f"(bundle {pin.bundle_digest[:12]})",
            hint="put the agent's files back as they were, or start a new run",
            code="agent.changed",
        )

    def refused(self) -> Sequence[Refusal]:
        """Every place that holds an agent which is not started; for ``rlp list`` and ``doctor``."""
        found = []
        for folder in self._folders():
            name = folder.name
            try:
                agent = self._read(folder)
                name = agent.manifest.name
                if not self._is_startable(agent):
                    raise self._refusal(agent)
            except RunloopError as error:
                found.append(Refusal(place=str(folder), name=name, reason=error.message, hint=error.hint))
        for one in self._installed:
            place = f"installed {one.version} ({one.bundle[:12]})"
            try:
                if one.name in self._shipped:
                    raise AgentRefusedError(
                        f"this version of Runloop ships an agent {one.name} of its own",
                        hint=f"'rlp agent remove {one.name}' removes the installed one",
                        code="agent.name",
                    )
                self._installed_agent(one)
            except RunloopError as error:
                found.append(Refusal(place=place, name=one.name, reason=error.message, hint=error.hint))
        return found

    def list(self) -> Sequence[InstalledAgent]:
        """Every agent that may be started, by name and variant; those that may not are left out."""
        found: dict[tuple[str, str, str], InstalledAgent] = {}
        for agent in (*self._startable_folders(), *self._startable_installed()):
            key = (agent.manifest.name, agent.manifest.variant, agent.manifest.version)
            found.setdefault(key, agent)
        return [found[key] for key in sorted(found)]

    def _startable_folders(self) -> Iterator[InstalledAgent]:
        for folder in self._folders():
            with contextlib.suppress(RunloopError):
                agent = self._read(folder)
                if self._is_startable(agent):
                    yield agent

    def _startable_installed(self) -> Iterator[InstalledAgent]:
        for one in self._installed:
            if one.name not in self._shipped:
                with contextlib.suppress(RunloopError):
                    yield self._installed_agent(one)

    # --- reading ----------------------------------------------------------------------------------

    def _folders(self) -> Iterator[Path]:
        for place in self._dirs:
            try:
                inside = sorted(place.iterdir())
            except OSError:
                continue  # a place that does not exist holds no agents
            for folder in inside:
                with contextlib.suppress(OSError):  # one that may not be looked into stops no other
                    if (folder / MANIFEST).is_file() or is_config_agent(folder):
                        yield folder

    def _names(self) -> Sequence[str]:
        return list(dict.fromkeys(agent.manifest.name for agent in self.list()))

    def _is_startable(self, agent: InstalledAgent) -> bool:
        """Pinned, or allowed though unsigned: then under a name that nobody else has."""
        name = agent.manifest.name
        taken = name in self._shipped or self._installed.owner(name) is not None
        return agent.pinned or (self._allow_unsigned and not taken)

    def _refusal(self, agent: InstalledAgent) -> AgentRefusedError:
        name = agent.dir.name
        if name in self._shipped and agent.dir.parent == self._dirs[-1]:
            return AgentRefusedError(
                f"the shipped agent {name} was altered: bundle {agent.bundle_digest[:12]} is not pinned",
                hint="install runloop again, or copy the agent under a name of its own to change it",
                code="agent.altered",
                dir=str(agent.dir),
            )
        if self._allow_unsigned and agent.manifest.name in self._shipped:
            return self._takes_name(agent.dir, agent.manifest.name, "shipped")
        if self._allow_unsigned and self._installed.owner(agent.manifest.name) is not None:
            # Also after a removal: what it may do, and what it remembers, still go by that name.
            return self._takes_name(agent.dir, agent.manifest.name, "installed")
        return AgentRefusedError(
            f"{agent.dir} holds an agent nobody vouches for",
            hint="build, sign and install it ('rlp agent install --dev-key FILE.rlb'), or set "
            "security.allow_unsigned_agents = true to run agents of your own",
            code="agent.unsigned",
            dir=str(agent.dir),
        )

    @staticmethod
    def _takes_name(folder: Path, name: str, whose: str) -> AgentRefusedError:
        return AgentRefusedError(
            f"{folder} takes the name of the {whose} agent {name} and is another",
            hint="give it another name in its manifest.toml, or remove the folder",
            code="agent.name",
            dir=str(folder),
        )

    def _read(self, folder: Path, *, installation: Installation | None = None) -> InstalledAgent:
        """The agent in a folder. The one place where a bundle on disk becomes bytes in memory."""
        return self._seen.of(
            folder,
            lambda: self.examine(_bundle(folder), folder, installation=installation),
            key=installation,
        )

    def examine(
        self, files: Mapping[str, bytes], folder: Path, *, installation: Installation | None = None
    ) -> InstalledAgent:
        """The agent these files are, read strictly; ``folder`` is where they lie, or will.

        Raises families of :mod:`runloop.errors` for whatever makes them no agent. Says nothing of trust.
        """
        digest = bundle_digest(files)
        manifest = parse_manifest(_file(files, MANIFEST, folder), origin=str(folder / MANIFEST))
        policy_text = _text(files, manifest.caps, folder)
        tools = parse_tools(_file(files, manifest.tools, folder), origin=str(folder / manifest.tools))
        language = INTERPRETED.get(manifest.language)
        component = _file(files, manifest.entrypoint, folder) if language is None else None
        own = None if language is None else _modules(files, manifest, language, folder)
        modules = served_beside(own) if own is not None and manifest.language == "python" else own
        pinned = digest in self._trusted
        return InstalledAgent(
            manifest=manifest,
            dir=folder,
            bundle_digest=digest,
            pin=AgentPin(
                name=manifest.name,
                version=manifest.version,
                variant=manifest.variant,
                bundle_digest=digest,
                component_digest=self._runner(manifest) if component is None else blob_digest(component),
                language=manifest.language,
            ),
            pinned=pinned,
            origin="shipped" if pinned else "folder" if installation is None else "installed",
            installation=installation,
            policy_text=policy_text,
            policy=parse_policy(policy_text, origin=str(folder / manifest.caps)),
            component_path=folder / manifest.entrypoint if language is None else None,
            modules=modules,
            beside=frozenset(modules or ()) - frozenset(own or ()),
            tools=tools,
            limits=GuestLimits(
                fuel=manifest.limits.fuel,
                memory_bytes=manifest.limits.memory_mb * MIB,
                guest_ms=manifest.limits.guest_ms,
                host_calls=manifest.limits.max_host_calls,
            ),
        )

    def _runner(self, manifest: Manifest) -> str:
        try:
            return self._runners[manifest.language]
        except KeyError:
            raise NotFoundError(
                f"this build of Runloop has no runner for {manifest.language}",
                hint="upgrade runloop",
                code="runner.missing",
            ) from None


def _altered(one: Installation, why: str) -> AgentRefusedError:
    return AgentRefusedError(
        f"the installed agent {one.name} {one.version} is not the one that was installed: {why}",
        hint=f"install it again, or 'rlp agent remove {one.name}'",
        code="agent.altered",
    )


def read_pins(folder: Path) -> dict[str, str]:
    """``digests.toml`` of the shipped agents in ``folder``: name -> bundle digest.

    Raises :class:`NotFoundError` when it is missing, :class:`DivergenceError` when it is not such a list.
    """
    path = folder / "digests.toml"
    try:
        bundles = tomllib.loads(path.read_text())["bundles"]
        return {str(name): str(digest) for name, digest in bundles.items()}
    except FileNotFoundError as error:
        raise NotFoundError(
            f"the pins of the shipped agents are missing ({path})",
            hint="install runloop again",
            code="agent.pins",
        ) from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise DivergenceError(
            f"{path} does not list bundle digests: {error}", hint="install runloop again", code="agent.pins"
        ) from error


def _bundle(path: Path) -> dict[str, bytes]:
    """The files of the bundle that a folder holds, or that a config agent's one file stands for."""
    return read_config_agent(path) if is_config_agent(path) else read_bundle(path)


def _may_mean(folder: Path, reference: AgentReference) -> bool:
    if is_config_agent(folder):
        return folder.name.partition(".")[0] == reference.name
    try:
        return reference.matches(parse_manifest(read_plain(folder / MANIFEST, MAX_MANIFEST_BYTES)))
    except RunloopError:
        return folder.name == reference.name


def _ports(specs: Mapping[str, Any]) -> dict[str, OpeningPort]:
    return {name: OpeningPort(type=spec.type, required=spec.required) for name, spec in specs.items()}


def _file(files: Mapping[str, bytes], name: str, folder: Path) -> bytes:
    found = files.get(name)
    if found is None:
        raise BundleError(f"{folder} has no file {name}", hint=f"add {name}", code="bundle.incomplete")
    return found


def _text(files: Mapping[str, bytes], name: str, folder: Path) -> str:
    try:
        return _file(files, name, folder).decode()
    except UnicodeDecodeError as error:
        raise BundleError(f"{folder / name} is not UTF-8: {error.reason}", hint="save it as UTF-8") from error


def _modules(
    files: Mapping[str, bytes], manifest: Manifest, language: Interpreted, folder: Path
) -> dict[str, str]:
    """Every source file of the bundle under its module's name; tests of the agent stay behind."""
    modules: dict[str, str] = {}
    for path in files:
        if not path.endswith(language.suffix) or path.startswith("tests/"):
            continue
        if not language.dotted:
            modules[path] = _text(files, path, folder)
            continue
        bare = path.removesuffix(language.suffix)
        if language.package:
            bare = bare.removesuffix(f"/{language.package}")
        modules[bare.replace("/", ".")] = _text(files, path, folder)
    entry = manifest.entrypoint.partition(":")[0]
    if entry not in modules:
        finding = Finding(
            line=0,
            what=f"the entrypoint's module {entry!r} is not in the bundle",
            fix=f"add {entry.removesuffix(language.suffix)}{language.suffix}",
        )
        raise ManifestError(str(folder / MANIFEST), [finding])
    return modules
