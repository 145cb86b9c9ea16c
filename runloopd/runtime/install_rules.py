"""What may take the place of what: the rules between versions, names and builds of Runloop.

Knows: when an install is an upgrade, a downgrade, or no install at all. Does not know: signatures
(``runloop.bundle.trust``), rights, persons, files. Pure.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Literal

from runloop import __version__
from runloop.bundle.installed import Installations
from runloop.bundle.manifest import Manifest
from runloop.bundle.semver import precedence
from runloop.bundle.trust import SHIPPED_PUBLISHER
from runloop.errors import RefusedError

__all__ = ["How", "InstallError", "Wish", "check_place", "how_it_comes"]

How = Literal["install", "upgrade", "downgrade", "rollback", "swap"]


class InstallError(RefusedError):
    """This bundle is not installed. ``named_code`` says why: ``install.shipped_name``, ``install.downgrade``,
    ``install.same_version``, ``install.min_runloop``, ``install.changed``."""

    code: ClassVar[str] = "install.refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What the operator allows beyond the rule. Every one of them is shown to the person, and recorded."""

    dev_key: bool = False
    """A bundle signed by this home's development key is meant."""
    allow_downgrade: bool = False
    """An older version than the highest ever installed is meant."""
    allow_stale_index: bool = False
    """An index whose time is over is good enough."""
    dev_swap: bool = False
    """A build of the author's own takes the last one's place without a question, if it may do no more."""

    def to_json(self) -> dict[str, bool]:
        return {
            "dev_key": self.dev_key,
            "allow_downgrade": self.allow_downgrade,
            "allow_stale_index": self.allow_stale_index,
            "dev_swap": self.dev_swap,
        }


def check_place(manifest: Manifest, shipped: Collection[str]) -> None:
    """Raise :class:`InstallError` for a name that is taken for ever, or a Runloop that is too old."""
    if manifest.name in shipped:
        raise InstallError(
            f"{manifest.name} is the name of an agent that comes with Runloop",
            hint="its author must choose another name",
            code="install.shipped_name",
            owner=SHIPPED_PUBLISHER,
        )
    if precedence(manifest.min_runloop) > precedence(__version__):
        raise InstallError(
            f"{manifest.name} {manifest.version} needs Runloop {manifest.min_runloop}; this is {__version__}",
            hint="upgrade runloop",
            code="install.min_runloop",
        )


def how_it_comes(installed: Installations, manifest: Manifest, bundle: str, *, dev: bool, wish: Wish) -> How:
    """``install``, ``upgrade`` or ``downgrade``; raises :class:`InstallError` for what the rules between
    versions forbid. A version is published once, and the highest one ever installed is remembered, also
    after a rollback or a removal (attacks.md M10)."""
    name, variant, version = manifest.name, manifest.variant, manifest.version
    current = installed.current(name, variant)
    author = dev and (current is None or current.dev)
    same = [
        one
        for one in installed.kept(name, variant)
        if precedence(one.version) == precedence(version) and one.bundle != bundle
    ]
    if same and not author:  # an author builds one version many times
        raise InstallError(
            f"{name} {version} was installed here with other bytes ({same[-1].bundle[:12]})",
            hint="a version is published once; ask its publisher for a new one",
            code="install.same_version",
            installed=same[-1].bundle,
        )
    highest = installed.highest(name, variant)
    lower = highest is not None and precedence(version) < precedence(highest)
    if lower and not wish.allow_downgrade:
        raise InstallError(
            f"{name} {version} is older than {highest}, which was installed here",
            hint=f"add --allow-downgrade if you mean it; to go back one version, 'rlp agent rollback {name}'",
            code="install.downgrade",
            highest=highest,
        )
    if current is None:
        return "install"
    return "downgrade" if precedence(version) < precedence(current.version) else "upgrade"
