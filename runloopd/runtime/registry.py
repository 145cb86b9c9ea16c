"""Which agents are installed, and which exact bytes each of them is.

Knows: where agents lie, which bundles are pinned, how ``agent:name[@variant|@version]`` is resolved, what a
bundle must hold. Does not know: how an agent is compiled or run, or what the operator leaves of its rights.

A bundle is read once per question, and its digest, manifest, policy and code come from those same bytes:
there is no moment between check and use. Nothing is cached, so that a file changed on disk is noticed at the
next attempt.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from openings.definition import PortSpec as OpeningPort
from openings.definition import PortTable
from runloop.bundle.digest import BundleError, bundle_digest, read_bundle
from runloop.bundle.manifest import Finding, Manifest, ManifestError, check_values, parse_manifest
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
from runloopd.runtime.orders import MIB, GuestLimits

__all__ = ["AgentReference", "AgentRefusedError", "InstalledAgent", "Registry", "read_pins"]

MANIFEST = "manifest.toml"


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
    policy_text: str
    policy: Policy
    """Its ``policy.caps``; the operator and the token narrow it further."""
    component_path: Path | None
    """Its own component; None: the shared runner executes ``modules``."""
    modules: dict[str, str] | None
    """Python source by dotted module name; None for a component."""
    limits: GuestLimits

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
        }


class Registry:
    """Finds installed agents in ``dirs``, first hit first. A pinned bundle may lie in any of them.

    ``pins`` are the digests of the bundles that came with this distribution. Any other bundle is refused, and
    passed over in favour of a pinned one of the same reference, unless ``allow_unsigned``; the name of a
    shipped agent is never given to another bundle, whatever is allowed.
    ``runner_digest`` is the digest of the component that executes Python agents. ``kept`` holds a copy, by
    digest, of every bundle a run was started with, so that the run outlives changes of its agents.
    """

    def __init__(
        self,
        dirs: Sequence[Path],
        *,
        pins: Mapping[str, str],
        runner_digest: str,
        allow_unsigned: bool = False,
        kept: Path | None = None,
    ) -> None:
        self._dirs = tuple(dirs)
        self._trusted = {digest: name for name, digest in pins.items()}
        self._shipped = frozenset(pins)
        self._runner_digest = runner_digest
        self._allow_unsigned = allow_unsigned
        self._kept = kept

    def keep(self, agent: InstalledAgent) -> None:
        """Copy the agent's bundle to the kept ones, all of it or nothing. Does nothing when it is there.

        Raises :class:`ConflictError` when its files changed since it was resolved, :class:`FailedError` when
        the copy cannot be written.
        """
        if self._kept is None or (self._kept / agent.bundle_digest).is_dir():
            return
        files = read_bundle(agent.dir)
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

    def beside(self, folder: Path) -> Registry:
        """The same registry, looking first in ``folder``: the ``agents`` of where a user stands."""
        return Registry(
            [folder, *self._dirs],
            pins={name: digest for digest, name in self._trusted.items()},
            runner_digest=self._runner_digest,
            allow_unsigned=self._allow_unsigned,
            kept=self._kept,
        )

    def resolve(self, use: str) -> InstalledAgent:
        """The agent a node's ``use`` means, ready to start.

        Raises :class:`NotFoundError`, or says what is wrong with the only bundles that were found.
        """
        reference = AgentReference.parse(use)
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
        raise NotFoundError(
            f"there is no agent {reference}",
            hint=f"installed: {', '.join(self._names()) or 'none'}",
            code="agent.unknown",
        )

    def pinned(self, pin: AgentPin) -> InstalledAgent:
        """Exactly the agent a run pinned, its bytes checked again now.

        Raises :class:`NotFoundError` when no such bundle is left, :class:`DivergenceError` when it was pinned
        with another runner or component than the present one.
        """
        kept = [] if self._kept is None else [self._kept / pin.bundle_digest]
        for folder in (*kept, *self._folders()):
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
            return agent
        raise NotFoundError(
            f"the agent {pin.name} {pin.version} of this run was changed or removed "
            f"(bundle {pin.bundle_digest[:12]})",
            hint="put the agent's files back as they were, or start a new run",
            code="agent.changed",
        )

    def list(self) -> Sequence[InstalledAgent]:
        """Every agent that may be started, by name and variant; those that may not are left out."""
        found: dict[tuple[str, str, str], InstalledAgent] = {}
        for folder in self._folders():
            try:
                agent = self._read(folder)
            except RunloopError:
                continue
            if self._is_startable(agent):
                key = (agent.manifest.name, agent.manifest.variant, agent.manifest.version)
                found.setdefault(key, agent)
        return [found[key] for key in sorted(found)]

    def refused(self) -> dict[str, str]:
        """Folder -> why the agent in it is not started; for ``doctor``."""
        why: dict[str, str] = {}
        for folder in self._folders():
            try:
                agent = self._read(folder)
            except RunloopError as error:
                why[str(folder)] = error.message
                continue
            if not self._is_startable(agent):
                why[str(folder)] = self._refusal(agent).message
        return why

    # --- reading ----------------------------------------------------------------------------------

    def _folders(self) -> Iterator[Path]:
        for place in self._dirs:
            try:
                inside = sorted(place.iterdir())
            except OSError:
                continue  # a place that does not exist holds no agents
            for folder in inside:
                if (folder / MANIFEST).is_file():
                    yield folder

    def _names(self) -> Sequence[str]:
        return list(dict.fromkeys(agent.manifest.name for agent in self.list()))

    def _is_startable(self, agent: InstalledAgent) -> bool:
        """Pinned, or allowed though unsigned: then under a name that no shipped agent has."""
        return agent.pinned or (self._allow_unsigned and agent.manifest.name not in self._shipped)

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
            return AgentRefusedError(
                f"{agent.dir} takes the name of the shipped agent {agent.manifest.name} and is another",
                hint="give it another name in its manifest.toml, or remove the folder",
                code="agent.name",
                dir=str(agent.dir),
            )
        return AgentRefusedError(
            f"{agent.dir} holds an agent nobody vouches for",
            hint="set security.allow_unsigned_agents = true to run agents of your own",
            code="agent.unsigned",
            dir=str(agent.dir),
        )

    def _read(self, folder: Path) -> InstalledAgent:
        files = read_bundle(folder)
        digest = bundle_digest(files)
        manifest = parse_manifest(_file(files, MANIFEST, folder), origin=str(folder / MANIFEST))
        policy_text = _text(files, manifest.caps, folder)
        _check_tools(files, manifest, folder)
        python = manifest.language == "python"
        component = None if python else _file(files, manifest.entrypoint, folder)
        return InstalledAgent(
            manifest=manifest,
            dir=folder,
            bundle_digest=digest,
            pin=AgentPin(
                name=manifest.name,
                version=manifest.version,
                variant=manifest.variant,
                bundle_digest=digest,
                component_digest=self._runner_digest if component is None else blob_digest(component),
                language=manifest.language,
            ),
            pinned=digest in self._trusted,
            policy_text=policy_text,
            policy=parse_policy(policy_text, origin=str(folder / manifest.caps)),
            component_path=None if python else folder / manifest.entrypoint,
            modules=_modules(files, manifest, folder) if python else None,
            limits=GuestLimits(
                fuel=manifest.limits.fuel,
                memory_bytes=manifest.limits.memory_mb * MIB,
                guest_ms=manifest.limits.guest_ms,
                host_calls=manifest.limits.max_host_calls,
            ),
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


def _may_mean(folder: Path, reference: AgentReference) -> bool:
    try:
        return reference.matches(parse_manifest((folder / MANIFEST).read_bytes()))
    except (OSError, RunloopError):
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


def _check_tools(files: Mapping[str, bytes], manifest: Manifest, folder: Path) -> None:
    try:
        tools = json.loads(_text(files, manifest.tools, folder))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{folder / manifest.tools} is not JSON: {error}", hint="correct it") from error
    if not isinstance(tools, dict) or tools.get("version") != 1 or not isinstance(tools.get("tools"), list):
        raise BundleError(
            f"{folder / manifest.tools} is not a list of tools",
            hint='write {"version": 1, "tools": []} for an agent without tools',
        )


def _modules(files: Mapping[str, bytes], manifest: Manifest, folder: Path) -> dict[str, str]:
    """Every Python file of the bundle under its dotted module name; tests of the agent stay behind."""
    modules: dict[str, str] = {}
    for path in files:
        if not path.endswith(".py") or path.startswith("tests/"):
            continue
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        modules[name] = _text(files, path, folder)
    entry = manifest.entrypoint.partition(":")[0]
    if entry not in modules:
        finding = Finding(
            line=0, what=f"the entrypoint's module {entry!r} is not in the bundle", fix=f"add {entry}.py"
        )
        raise ManifestError(str(folder / MANIFEST), [finding])
    return modules
