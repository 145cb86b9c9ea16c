"""Guards between an agent and the world: the gate, decisions, tokens, the record."""

from __future__ import annotations

from tests.mutants.guard import guards

__all__ = ["INSIDE"]

_GATE = [
    *guards(
        "P1",
        "runloopd/broker/gate.py",
        "unit/broker/test_guards.py unit/broker/test_gate.py unit/broker/test_agent_quotas.py "
        "unit/broker/test_http_ops.py "
        "unit/broker/test_offers.py unit/broker/test_retractions.py unit/runs/test_stops.py",
        'if mine != (caller.run, caller.node, f"agent:{caller.pin.name}", caller.token_id):',
        "if self._record.run(caller.run) is not run:",
        "if objection is not None:",
        ("verdict = authorise(ask.agent, ask.caller.ops, ask.op, ask.grants)", "verdict = None"),
        "if len(text) > MAX_ANSWER_BYTES:",
        ('if ask.op.effect == "write" and done.facts:\n            ask.check()', "pass"),
        ("if effect is None or effect.delivered is None or not effect.delivered.ok:", "if True:"),
        ("await self._journal.append(*drafts, blobs=(ask.args_blob, text, *done.blobs))", "pass"),
        (
            "ask.facts += check(resource, used, asked, limits[resource], agent=ask.agent, warned=warned)",
            "pass",
        ),
    ),
    *guards(
        "P1",
        "runloopd/broker/rights.py",
        "unit/broker/test_guards.py unit/broker/test_gate.py",
        "if op.name not in declared:",
        "if not verdict.allowed:",
    ),
    *guards(
        "P1",
        "runloopd/broker/asks.py",
        "unit/broker/test_gate.py unit/broker/test_delegate_ops.py unit/broker/test_memory_ops.py",
        "if not verdict.allowed:",
    ),
    *guards(
        "P2",
        "runloopd/broker/flows.py",
        "unit/broker/test_flows.py",
        ("return tuple(sorted(tree.origins - {sink}))", "return ()"),
        ("return replace(plan, confirm=True, grantable=False)", "return plan"),
    ),
    *guards(
        "P5",
        "runloopd/broker/tripwires.py",
        "unit/broker/test_tripwires.py",
        "if there.bytes > most:",
        "if address > limits.address:",
        "if (why := self._held(agent)) is not None:",
    ),
    *guards(
        "P8",
        "runloopd/broker/delegate_ops.py",
        "unit/broker/test_delegate_ops.py",
        "if not ask.grants.reaches(name, value):",
    ),
    *guards(
        "K6",
        "runloopd/broker/quotas.py",
        "unit/broker/test_guards.py unit/broker/test_quotas.py unit/broker/test_models.py "
        "unit/broker/test_tree_money.py",
        "if used + asked > limit.hard:",
        "if used + micro_usd > self.limit_micro_usd:",
        ("micro_usd, tokens = max(0, micro_usd), max(0, tokens)", "pass"),
    ),
]

_DECISIONS = [
    *guards(
        "C4",
        "runloopd/authority/approvals.py",
        "unit/authority/test_approvals.py",
        'if principal.kind != "operator":',
        "if approval.action_digest != digest_seen:",
        'if approval.state != "active" and not again:',
        "if wanted != approval.action_digest:",
        "if now < approval.dispatch_after_ms:",
        "if not again and now >= approval.expires_ms:",
        ("            check()\n            approval.held = True\n", "            approval.held = True\n"),
        ("approval.held = True", "pass"),
    ),
    *guards(
        "C2",
        "runloopd/authority/standing.py",
        "unit/broker/test_offers.py",
        'if principal.kind != "operator":',
        "if approval.action_digest != digest_seen:",
        'if action.get("kind") != "tool.call" or action.get("grantable") is not True:',
    ),
    *guards(
        "C12",
        "runloopd/authority/mint.py",
        "unit/authority/test_mint.py",
        ("self.generation += 1", "pass"),
        (
            "if verified is not None and generation == self.generation and now < verified.expires_ms:",
            "if verified is not None and generation == self.generation:",
        ),
    ),
    *guards(
        "C5",
        "runloopd/broker/effects.py",
        "unit/broker/test_gate.py unit/broker/test_mail.py unit/broker/test_offers.py",
        ("if decided.approved:", "if True:"),
    ),
    *guards(
        "C1",
        "sdk/python/runloop/approval.py",
        "unit/runloop/test_approval.py unit/rlp/test_commands.py unit/rlp/test_foreign_text.py",
        'if bound != approval["action_digest"]:',
    ),
    *guards(
        "C11",
        "runloopd/broker/mcp/questions.py",
        "unit/broker/mcp unit/broker/test_foreign_answers.py",
        "if question.url is not None or asks_secret(question) or len(fields) > MAX_FIELDS:",
    ),
    *guards(
        "C8",
        "rlp/commands/approvals.py",
        "unit/rlp/test_commands.py unit/rlp/test_authoring.py unit/rlp/test_run.py",
        "if always and not session.interactive:",
    ),
]

_TOKENS = [
    *guards(
        "C12",
        "sdk/python/runloop/caps/token.py",
        "unit/caps/test_token.py",
        "if now_ms >= verified.expires_ms:",
        ("gone = [name for name in verified.ids if name in revoked]", "gone = []"),
        "if child.expires_ms > parent.expires_ms:",
        "if child.run != parent.run or (parent.node is not None and child.node != parent.node):",
        "if biscuit.block_external_key(index) is not None:",
        ("grants = effective(verified.grants, grants).policy", "pass"),
    ),
    *guards(
        "P4",
        "sdk/python/runloop/caps/grants.py",
        "unit/caps/test_policy.py unit/broker/test_http_ops.py",
        'if parts.scheme == "http" and not self.allow_http:',
        'if self.paths and (".." in raw.split("/") or _SLY.search(raw)):',
        'if parts.scheme not in ("https", "http") or parts.username is not None or not host:',
    ),
    *guards(
        "M12",
        "sdk/python/runloop/caps/destination.py",
        "unit/caps/test_destination.py",
        "if address.version == network.version and address in network:",
        "if isinstance(address, IPv6Address) and address not in _UNICAST:",
    ),
]

_LEDGER = [
    *guards(
        "L2",
        "pog/ledger.py",
        "unit/pog/test_ledger.py unit/pog/test_anchor.py unit/pog/test_damage.py",
        "if row.id != expected or row.prev_hash != prev_hash or row.hash != relink_row(row, prev_hash):",
        "if found is None or found[0] != prev_hash:",
        "if self._key is not None and not anchor.signed_by(self._key.public_key()):",
        ("if found is not None and found[0] == anchor.hash:", "if True:"),
    ),
    *guards(
        "L3",
        "pog/chain.py",
        "unit/pog/test_ledger.py unit/pog/test_batch.py unit/pog/test_prepare.py",
        (
            "texts = (_length(len(payload)), payload, _length(len(provenance)), provenance)",
            "texts = (payload, provenance)",
        ),
    ),
    *guards(
        "L2",
        "pog/reader.py",
        "unit/pog/test_reader.py unit/pog/test_damage.py",
        "if blob_digest(data) != digest_hex:",
    ),
    *guards(
        "M11",
        "pog/maintain/migrate.py",
        "unit/pog/test_migration.py::test_a_newer_a_foreign_and_no_file_are_refused_untouched "
        "unit/pog/test_migration.py::test_a_migration_that_does_not_come_through_leaves_the_old_ledger",
        "if version > kind.version:",
        "if chain_of(connection) != events:",
    ),
    *guards(
        "L8",
        "openings/comparers.py",
        "unit/openings/test_comparers.py unit/openings/test_replay.py",
        "if actual != started.definition_digest:",
    ),
]

INSIDE = (
    *_GATE,
    *_DECISIONS,
    *_TOKENS,
    *_LEDGER,
)
