"""What a person is asked before an agent is installed, and the fact that a yes becomes.

Knows: which fields bind the decision, how they read, what ``agent.installed`` says. Does not know: who asks
when (``runtime.installer``), or how an answer is taken (``authority.desk``). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runloop.bundle.archive import Package
from runloop.bundle.diff import CapsDiff, render
from runloop.bundle.index import Index
from runloop.bundle.installed import Installation
from runloop.bundle.trust import Verdict
from runloop.digest import blob_digest, digest
from runloop.events import AgentInstalled
from runloopd.runtime.install_rules import How, Wish
from runloopd.runtime.registry import InstalledAgent
from runloopd.runtime.store import attestations_of

__all__ = ["Judged", "action_of", "caps_digest", "fact_of", "subject_of", "text_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A package somebody here is willing to believe."""

    package: Package
    agent: InstalledAgent
    verdict: Verdict

    @property
    def key(self) -> tuple[str, str]:
        """Name and variant."""
        return self.agent.manifest.name, self.agent.manifest.variant

    @property
    def shown(self) -> tuple[str, str, bool, str]:
        """What the person saw of who vouches for it: publisher, key, dev, SHA-256 of the content."""
        verdict = self.verdict
        return verdict.publisher, verdict.key_id, verdict.dev, self.package.tar_sha256


def subject_of(name: str, variant: str) -> str:
    """What a question is about: there is one open question for each."""
    return f"{name}@{variant}"


def caps_digest(diff: CapsDiff) -> str:
    """Names the difference as it was shown."""
    return digest(diff.to_json())


def action_of(
    judged: Judged,
    *,
    how: How,
    current: Installation | None,
    diff: CapsDiff,
    wish: Wish,
    index: Index | None,
) -> dict[str, Any]:
    """The canonical action: everything the yes is bound to."""
    manifest, package, verdict = judged.agent.manifest, judged.package, judged.verdict
    dev = ", signed with a development key" if verdict.dev else ""
    return {
        "summary": f"{how} {manifest.name} {manifest.version} of {verdict.publisher}{dev}",
        "how": how,
        "name": manifest.name,
        "variant": manifest.variant,
        "version": manifest.version,
        "description": manifest.description,
        "publisher": verdict.publisher,
        "key": verdict.key_id,
        "dev": verdict.dev,
        "bundle": package.bundle_digest,
        "archive_sha256": package.tar_sha256,
        "replaces": current.bundle if current is not None else None,
        "replaces_version": current.version if current is not None else None,
        "capabilities": diff.to_json(),
        "caps_digest": caps_digest(diff),
        "widening": bool(diff.widening),
        "wish": wish.to_json(),
        "index": None if index is None else {"serial": index.serial, "stale": index.stale},
        "resource": f"agent:{manifest.name}",
        "recipients": [],
        "agent": manifest.name,
        "amount_micro_usd": 0,
    }


def text_of(action: Mapping[str, Any], diff: CapsDiff) -> str:
    """What a person reads before saying yes."""
    replaces = action["replaces_version"]
    lines = [
        f"agent      {action['name']}" + (f"@{action['variant']}" if action["variant"] != "default" else ""),
        f"version    {action['version']}" + (f" in place of {replaces}" if replaces else ""),
        f"publisher  {action['publisher']}" + ("  (a development key of this home)" if action["dev"] else ""),
        f"key        {action['key']}",
        f"bundle     {action['bundle']}",
        f"sha256     {action['archive_sha256']}",
    ]
    wish = action["wish"]
    if wish["allow_downgrade"]:
        lines.append("NOTE       going to an older version was allowed by hand")
    if action["dev"]:
        lines.append("NOTE       'rlp dev' puts later builds of this key in its place without asking,")
        lines.append("           as long as they may do no more")
    if action["index"] is not None and action["index"]["stale"]:
        lines.append("NOTE       the index of agents is older than it may be; allowed by hand")
    return "\n".join([*lines, "", "what it may do, at most:", *(f"  {line}" for line in render(diff))]) + "\n"


def fact_of(
    judged: Judged,
    *,
    how: How,
    current: Installation | None,
    shown: str,
    approval: str | None,
    principal: str,
) -> AgentInstalled:
    """The commit. ``shown`` is the :func:`caps_digest` the person saw, or would have."""
    manifest, package = judged.agent.manifest, judged.package
    return AgentInstalled(
        name=manifest.name,
        variant=manifest.variant,
        agent_version=manifest.version,
        bundle=package.bundle_digest,
        archive_sha256=package.tar_sha256,
        attestation_blob=blob_digest(attestations_of(package)),
        publisher=judged.verdict.publisher,
        key=judged.verdict.key_id,
        dev=judged.verdict.dev,
        how=how,
        replaces=current.bundle if current is not None else None,
        caps_digest=shown,
        approval=approval,
        principal=principal,
    )
