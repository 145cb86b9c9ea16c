"""An event in words, for people: one sentence for each kind.

Knows: what a person wants to hear of a fact. Does not know: why it is so (``pog.why``), or what may be shown
to whom (``pog.redact``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runloop.events import Event

__all__ = ["WORDS", "summary"]

_HOW = {
    "install": "installed",
    "upgrade": "upgraded to",
    "downgrade": "went down to",
    "rollback": "rolled back to",
    "swap": "swapped for the author's next build",
}
_TRUST = {
    "add": "now trusts the publisher",
    "remove": "no longer trusts the publisher",
    "revoke": "revoked",
}
TOOL_ENDS = {
    "done": "done",
    "absent": "it was not done",
    "unknown": "nobody can tell whether it happened",
}
WORDS: dict[str, Callable[[Any], str]] = {
    "daemon.started": lambda p: f"daemon {p.build} started",
    "daemon.stopped": lambda p: f"daemon stopped: {p.reason}",
    "run.started": lambda p: (
        f"{p.principal} started {p.opening}"
        + (f" by asking {p.origin['prompt']!r}" if p.origin.get("prompt") else "")
    ),
    "run.resumed": lambda p: f"run taken up again: {p.reason}",
    "run.cancel_requested": lambda p: f"{p.principal} asked to cancel: {p.reason}",
    "run.finished": lambda p: f"run {p.outcome}" + (f" because {p.clause}" if p.clause else ""),
    "node.scheduled": lambda p: f"attempt {p.attempt} of {p.node} scheduled",
    "node.finished": lambda p: f"attempt {p.attempt} of {p.node} {p.status}",
    "node.skipped": lambda p: f"{p.node} skipped: {p.reason}",
    "node.cancelled": lambda p: f"{p.node} cancelled: {p.reason}",
    "node.expanded": lambda p: f"{p.node} is served for {p.items} items",
    "node.gathered": lambda p: f"{p.node} {p.status} with {p.items - p.failed} of {p.items} items",
    "message.posted": lambda p: f"said to {p.to}: {p.act.replace('_', ' ')}, {p.size} bytes",
    "trigger.set": lambda p: (
        f"{p.principal} has {p.opening} run {'at ' + p.cron if p.cron else 'when files change'}"
    ),
    "trigger.removed": lambda p: f"{p.principal} removed the trigger {p.trigger}",
    "trigger.paused": lambda p: f"{p.principal} paused the trigger {p.trigger}",
    "trigger.resumed": lambda p: f"{p.principal} resumed the trigger {p.trigger}",
    "trigger.fired": lambda p: f"trigger {p.trigger} started a run",
    "trigger.missed": lambda p: f"trigger {p.trigger} missed {p.times}: {p.reason}",
    "message.sent": lambda p: f"{p.sender} sent {p.type} to {p.receiver}, {p.size} bytes",
    "topic.published": lambda p: f"{p.publisher} published {p.type} on {p.topic}, {p.size} bytes",
    "consumer.advanced": lambda p: f"consumer {p.consumer} of {p.owner} took everything up to {p.position}",
    "consumer.removed": lambda p: f"{p.owner} removed the consumer {p.consumer}",
    "hostcall.admitted": lambda p: f"{p.node} was let through to {p.op}",
    "hostcall.delivered": lambda p: f"{p.node} called {p.op} and was {'answered' if p.ok else 'refused'}",
    "model.called": lambda p: (
        f"{p.provider} {p.model} turned text into vectors for {p.cost_micro_usd} micro-dollars"
        if p.finish == "embedded"
        else f"{p.provider} {p.model} {'wrote' if p.generated else 'filled in (no language model)'} "
        f"{p.output_tokens} tokens for {p.cost_micro_usd} micro-dollars"
        + (f", from the {p.source}" if p.source != "asked" else "")
        + (f"; {p.route}" if p.route else "")
    ),
    "model.reserved": lambda p: (
        f"{p.reserved_micro_usd} micro-dollars were set aside to ask {p.provider} {p.model}"
    ),
    "action.requested": lambda p: f"{p.op} waits for a person: {p.action.get('summary', p.effect)}",
    "action.decided": lambda p: f"{p.principal} {p.decision} it",
    "action.claimed": lambda p: "the approval was used",
    "email.sent": lambda p: f"mail {p.subject!r} went to {', '.join(p.recipients)} by {p.provider}",
    "tool.called": lambda p: f"{p.agent} called {p.tool} on {p.resource}: {TOOL_ENDS[p.outcome]}",
    "grant.given": lambda p: (
        f"{p.principal} lets {p.agent} use {p.tool} on {p.resource} for good"
        + (f", for {p.asked_by} alone" if p.asked_by else "")
    ),
    "grant.revoked": lambda p: f"{p.principal} took the standing grant {p.grant} back",
    "secret.set": lambda p: (
        f"{p.principal} "
        + (f"put the secret {p.name} into the {p.store}" if p.store else f"said where {p.name} may be sent")
        + (f", for {', '.join(p.destinations)}" if p.destinations else "")
    ),
    "secret.removed": lambda p: f"{p.principal} removed the secret {p.name}",
    "secret.used": lambda p: f"the secret {p.name} was used by {p.by} towards {p.to}",
    "artifact.created": lambda p: f"{p.node} made {p.name} ({p.media_type}, {p.size} bytes)",
    "contact.upserted": lambda p: f"contact {p.name} learnt from {p.source or 'the user'}",
    "document.imported": lambda p: f"{p.type} {p.title!r} learnt from {p.source or 'the user'}",
    "calendar.upserted": lambda p: f"{p.type} {p.title!r} learnt from {p.source or 'the user'}",
    "memory.updated": lambda p: f"memory {p.namespace}/{p.key} is now at version {p.entry_version}",
    "memory.forgotten": lambda p: f"memory {p.namespace}/{p.key} was forgotten (version {p.entry_version})",
    "promise.created": lambda p: (
        f"{p.node} waits for {'a person' if p.resolver == 'operator' else 'a word'}"
        + (f": {p.question}" if p.question else "")
    ),
    "promise.resolved": lambda p: f"{p.principal} said what was promised",
    "promise.timed_out": lambda p: f"nobody said it in time ({p.reason.replace('_', ' ')})",
    "ledger.rekeyed": lambda p: f"{p.principal} gave the ledger another signing key",
    "ledger.restored": lambda p: f"{p.principal} put a {p.source} of {p.head_id} events in its place",
    "source.retracted": lambda p: f"{p.principal} took back event {p.source}: {p.reason}",
    "source.restored": lambda p: f"{p.principal} let event {p.retraction}'s facts count again: {p.reason}",
    "token.issued": lambda p: f"token for {p.holder} issued",
    "token.revoked": lambda p: f"token revoked: {p.reason}",
    "cap.audit": lambda p: f"{p.capability} for {p.op} {p.decision}: {p.reason}",
    "policy.changed": lambda p: f"{p.principal} changed {p.capability} of {p.agent}: {p.change}",
    "agent.transition": lambda p: f"{p.agent} went from {p.before} to {p.after}",
    "agent.quarantined": lambda p: f"{p.name} was quarantined: {p.reason}",
    "agent.released": lambda p: f"{p.principal} released {p.name}: {p.reason}",
    "agent.stopped": lambda p: f"{p.principal} {p.how} {p.name} in {p.node}.{p.attempt}: {p.reason}",
    "agent.installed": lambda p: (
        f"{p.principal} {_HOW[p.how]} {p.name} {p.agent_version} of {p.publisher or 'this home'}"
        + (" (development key)" if p.dev else "")
    ),
    "agent.removed": lambda p: f"{p.principal} removed {p.name} {p.agent_version}",
    "agent.index_seen": lambda p: f"index {p.serial} of {p.publisher} read, good until {p.expires}",
    "trust.changed": lambda p: (
        f"{p.principal} {_TRUST[p.change]} {p.subject}" + (f": {p.reason}" if p.reason else "")
    ),
    "mcp.server.added": lambda p: f"{p.principal} added the MCP server {p.server}",
    "mcp.server.removed": lambda p: f"{p.principal} removed the MCP server {p.server}: {p.reason}",
    "mcp.tools.seen": lambda p: f"the MCP server {p.server} offers {len(p.tools)} tools",
    "mcp.tools.approved": lambda p: (
        f"{p.principal} approved {len(p.tools)} tools of the MCP server {p.server} as {p.effect}"
    ),
    "mcp.tool.suspended": lambda p: f"mcp.{p.server}.{p.tool} is suspended ({p.reason}), by {p.principal}",
    "face.exposed": lambda p: f"{p.principal} lets programs outside reach {', '.join(p.items) or 'nothing'}",
    "face.token.issued": lambda p: f"{p.principal} made the token {p.name} for a program outside",
    "face.token.revoked": lambda p: f"{p.principal} revoked the token {p.name} of a program outside",
    "quota.warned": lambda p: f"{p.agent} has used {p.used} of {p.limit} {p.resource}",
    "quota.exceeded": lambda p: f"{p.agent} used up {p.limit} {p.resource}",
    "timer.set": lambda p: f"timer {p.timer} set",
    "timer.fired": lambda p: f"timer {p.timer} fired",
}


def summary(event: Event) -> str:
    """What an event says, in a line; its kind where nobody has words for it."""
    words = WORDS.get(event.kind)
    return words(event.payload) if words else event.kind
