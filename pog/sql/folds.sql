-- How an event changes the views: one block per kind, statements in order. Named values are the payload's fields
-- (lists and objects as JSON text) and the event's own :event, :ts_ms, :actor, :run, :label. A kind without a
-- block changes no view. A statement marked "summed by run" may be given the sums of several events of one run, with
-- :events their number (pog/batch.py).

-- name: run.started
INSERT INTO runs (run, opening, definition_digest, params, principal, via, prompt, parent_run, parent_node,
                  parent_attempt, root_run, fork_of, state, started_ms, started_event)
VALUES (:run, :opening, :definition_digest, :params, :principal, :origin ->> '$.via', :origin ->> '$.prompt',
        :parent ->> '$.run', :parent ->> '$.node', :parent ->> '$.attempt', coalesce(:parent ->> '$.root', :run),
        :fork ->> '$.run', 'running', :ts_ms, :event);
INSERT INTO nodes (run, node, agent, agent_version, variant, bundle_digest, state)
SELECT :run, key, value ->> '$.name', value ->> '$.version', value ->> '$.variant', value ->> '$.bundle_digest', 'pending'
FROM json_each(:agents) WHERE key NOT LIKE '%/%' ORDER BY key;

-- name: run.resumed
UPDATE runs SET resumed = resumed + 1 WHERE run = :run;

-- name: run.cancel_requested
UPDATE runs SET state = 'cancelling' WHERE run = :run AND finished_event IS NULL;

-- name: run.finished
UPDATE runs
SET state = :outcome, clause = :clause, output_digest = :output_digest, finished_ms = :ts_ms,
    finished_event = :event, error_code = :error ->> '$.code', error_message = :error ->> '$.message'
WHERE run = :run;

-- name: node.scheduled
INSERT INTO nodes (run, node, state, attempt, started_ms, scheduled_event, input_digest)
VALUES (:run, :node, 'running', :attempt, :ts_ms, :event, :input_digest)
ON CONFLICT (run, node) DO UPDATE
SET state = 'running', attempt = excluded.attempt, started_ms = coalesce(nodes.started_ms, excluded.started_ms),
    scheduled_event = excluded.scheduled_event, input_digest = excluded.input_digest, finished_ms = NULL,
    finished_event = NULL, output_digest = NULL, error_code = NULL, error_message = NULL, reason = NULL;

-- name: node.finished
INSERT INTO nodes (run, node, state, attempt, finished_ms, finished_event, output_digest, error_code,
                   error_message, fuel, calls)
VALUES (:run, :node, :status, :attempt, :ts_ms, :event, :output_digest, :error ->> '$.code',
        :error ->> '$.message', :fuel, :calls)
ON CONFLICT (run, node) DO UPDATE
SET state = excluded.state, attempt = excluded.attempt, finished_ms = excluded.finished_ms,
    finished_event = excluded.finished_event, output_digest = excluded.output_digest,
    error_code = excluded.error_code, error_message = excluded.error_message,
    fuel = nodes.fuel + excluded.fuel, calls = nodes.calls + excluded.calls;

-- name: node.skipped
INSERT INTO nodes (run, node, state, finished_ms, finished_event, reason)
VALUES (:run, :node, 'skipped', :ts_ms, :event, :reason)
ON CONFLICT (run, node) DO UPDATE
SET state = 'skipped', finished_ms = excluded.finished_ms, finished_event = excluded.finished_event,
    reason = excluded.reason;

-- name: node.cancelled
INSERT INTO nodes (run, node, state, finished_ms, finished_event, reason)
VALUES (:run, :node, 'cancelled', :ts_ms, :event, :reason)
ON CONFLICT (run, node) DO UPDATE
SET state = 'cancelled', finished_ms = excluded.finished_ms, finished_event = excluded.finished_event,
    reason = excluded.reason;

-- name: node.expanded
INSERT INTO nodes (run, node, state, started_ms, scheduled_event, items)
VALUES (:run, :node, 'running', :ts_ms, :event, :items)
ON CONFLICT (run, node) DO UPDATE
SET state = 'running', started_ms = excluded.started_ms, scheduled_event = excluded.scheduled_event,
    items = excluded.items;

-- name: node.gathered
UPDATE nodes
SET state = :status, finished_ms = :ts_ms, finished_event = :event, output_digest = :output_digest,
    error_code = :error ->> '$.code', error_message = :error ->> '$.message'
WHERE run = :run AND node = :node;

-- name: message.posted
INSERT INTO talk (run, message, node, attempt, to_, act, conversation, in_reply_to, size, event, posted_ms)
VALUES (:run, :message, :node, :attempt, :to, :act, :conversation, :in_reply_to, :size, :event, :ts_ms);

-- name: trigger.set
INSERT INTO triggers (trigger_, opening, cron, zone, watch, principal, event, set_ms)
VALUES (:trigger, :opening, :cron, :zone, :watch, :principal, :event, :ts_ms)
ON CONFLICT (trigger_) DO UPDATE
SET opening = excluded.opening, cron = excluded.cron, zone = excluded.zone, watch = excluded.watch,
    principal = excluded.principal, event = excluded.event, set_ms = excluded.set_ms, paused_ms = NULL,
    removed_event = NULL;

-- name: trigger.removed
UPDATE triggers SET removed_event = :event WHERE trigger_ = :trigger;

-- name: trigger.paused
UPDATE triggers SET paused_ms = :ts_ms WHERE trigger_ = :trigger;

-- name: trigger.resumed
UPDATE triggers SET paused_ms = NULL WHERE trigger_ = :trigger;

-- name: trigger.fired
UPDATE triggers
SET fired = fired + 1, last_due_ms = max(coalesce(last_due_ms, 0), :due_ms), last_run = :starts, last_event = :event
WHERE trigger_ = :trigger;

-- name: trigger.missed
UPDATE triggers
SET missed = missed + :times, last_due_ms = max(coalesce(last_due_ms, 0), :last_due_ms), last_event = :event
WHERE trigger_ = :trigger;

-- name: message.sent
INSERT INTO messages (event, run, sender, receiver, topic, type, schema_id, msg_id, size, body_digest, node,
                      attempt, sent_ms)
VALUES (:event, :run, :sender, :receiver, :topic, :type, :schema_id, :msg_id, :size, :body_digest, :node,
        :attempt, :ts_ms);
-- summed by run
UPDATE runs SET messages = messages + :events, message_bytes = message_bytes + :size WHERE run = :run;

-- name: hostcall.admitted
INSERT INTO hostcalls (run, node, attempt, call, op, effect, key, state, args_digest, request_bytes, fuel,
                       reserved_micro_usd, reserved_for, admitted_event)
VALUES (coalesce(:run, ''), :node, :attempt, :call, :op, :effect, :key, 'admitted', :args_digest, :request_bytes,
        :fuel, :reserved_micro_usd, :reserved_for, :event)
ON CONFLICT (run, node, attempt, call) DO UPDATE
SET state = 'admitted', key = excluded.key, admitted_event = excluded.admitted_event,
    reserved_micro_usd = excluded.reserved_micro_usd, reserved_for = excluded.reserved_for;

-- name: hostcall.delivered
INSERT INTO hostcalls (run, node, attempt, call, op, effect, state, ok, args_digest, result_digest,
                       request_bytes, response_bytes, fuel, delivered_event)
VALUES (coalesce(:run, ''), :node, :attempt, :call, :op, :effect, 'delivered', :ok, :args_digest, :result_digest,
        :request_bytes, :response_bytes, :fuel, :event)
ON CONFLICT (run, node, attempt, call) DO UPDATE
SET state = 'delivered', ok = excluded.ok, result_digest = excluded.result_digest,
    response_bytes = excluded.response_bytes, delivered_event = excluded.delivered_event;
-- summed by run
UPDATE runs SET hostcalls = hostcalls + :events WHERE run = :run;

-- name: model.called
INSERT INTO model_calls (event, run, node, attempt, call, provider, model, generated, request_digest, answer_digest,
                         input_tokens, output_tokens, estimated, reserved_micro_usd, cost_micro_usd, price_version,
                         finish, route, source, saved_micro_usd, called_ms)
VALUES (:event, :run, :node, :attempt, :call, :provider, :model, :generated, :request_digest, :answer_digest,
        :input_tokens, :output_tokens, :estimated, :reserved_micro_usd, :cost_micro_usd, :price_version,
        :finish, :route, :source, :saved_micro_usd, :ts_ms);
-- summed by run
UPDATE runs
SET cost_micro_usd = cost_micro_usd + :cost_micro_usd, input_tokens = input_tokens + :input_tokens,
    output_tokens = output_tokens + :output_tokens
WHERE run = :run;

-- name: action.requested
INSERT INTO approvals (approval, run, node, attempt, call, op, effect, key, action, action_digest, content_blob,
                       content_type, state, requested_ms, expires_ms, requested_event)
VALUES (:approval, :run, :node, :attempt, :call, :op, :effect, :key, :action, :action_digest, :content_blob,
        :content_type, 'waiting', :ts_ms, :expires_ms, :event);
UPDATE nodes SET state = 'waiting' WHERE run = :run AND node = :node AND state = 'running';
UPDATE runs SET state = 'waiting' WHERE run = :run AND state = 'running';

-- name: action.decided
UPDATE approvals
SET state = :decision, decided_ms = :ts_ms, principal = :principal, note = :note,
    dispatch_after_ms = :dispatch_after_ms, decided_event = :event
WHERE approval = :approval;
UPDATE nodes SET state = 'running'
WHERE run = :run AND node = :node AND state = 'waiting'
  AND NOT EXISTS (SELECT 1 FROM approvals WHERE run = :run AND node = :node AND state = 'waiting');
UPDATE runs SET state = 'running'
WHERE run = :run AND state = 'waiting'
  AND NOT EXISTS (SELECT 1 FROM approvals WHERE run = :run AND state = 'waiting');

-- name: action.claimed
UPDATE approvals SET state = 'claimed', claimed_event = :event WHERE approval = :approval;

-- name: email.sent
INSERT INTO emails (event, run, approval, provider, message_id, recipients, subject, content_blob, location, sent_ms)
VALUES (:event, :run, :approval, :provider, :message_id, :recipients, :subject, :content_blob, :location, :ts_ms);
UPDATE approvals SET state = 'done', done_event = :event WHERE approval = :approval;

-- name: tool.called
UPDATE approvals SET state = 'done', done_event = :event WHERE approval = :approval AND :outcome = 'done';

-- name: artifact.created
INSERT INTO artifacts (event, run, node, port, name, media_type, blob, size, created_ms)
VALUES (:event, :run, :node, :port, :name, :media_type, :blob, :size, :ts_ms);

-- name: contact.upserted
INSERT INTO contacts (contact, name, org, title, note, emails, phones, nicknames, source, label, event, updated_ms)
VALUES (:contact, :name, :org, :title, :note, :emails, :phones, :nicknames, :source, :label, :event, :ts_ms)
ON CONFLICT (contact) DO UPDATE
SET name = excluded.name, org = excluded.org, title = excluded.title, note = excluded.note,
    emails = excluded.emails, phones = excluded.phones, nicknames = excluded.nicknames, source = excluded.source,
    label = excluded.label, event = excluded.event, updated_ms = excluded.updated_ms;
DELETE FROM contact_emails WHERE contact = :contact;
INSERT INTO contact_emails (contact, position, email) SELECT :contact, key, value FROM json_each(:emails);
INSERT INTO searchables (id, kind, ref, title, body, label, source, event, dated_ms)
VALUES (:event, 'contact', 'contact:' || :contact, :name, :words, :label, :source, :event, :ts_ms)
ON CONFLICT (ref) DO UPDATE
SET id = excluded.id, title = excluded.title, body = excluded.body, label = excluded.label,
    source = excluded.source, event = excluded.event, dated_ms = excluded.dated_ms;
INSERT INTO imports (kind, ref, origin, event)
SELECT 'contact', :contact, :file, :event WHERE :file IS NOT NULL
ON CONFLICT (kind, ref) DO UPDATE SET origin = excluded.origin, event = excluded.event;

-- name: document.imported
INSERT INTO documents (document, type, title, text, people, written_ms, source, content_digest, label, event,
                       updated_ms)
VALUES (:document, :type, :title, :text, :people, :written_ms, :source, :content_digest, :label, :event, :ts_ms)
ON CONFLICT (document) DO UPDATE
SET type = excluded.type, title = excluded.title, text = excluded.text, people = excluded.people,
    written_ms = excluded.written_ms, source = excluded.source, content_digest = excluded.content_digest,
    label = excluded.label, event = excluded.event, updated_ms = excluded.updated_ms;
INSERT INTO searchables (id, kind, ref, title, body, label, source, event, dated_ms)
VALUES (:event, :type, 'document:' || :document, :title, :words, :label, :source, :event,
        coalesce(:written_ms, :ts_ms))
ON CONFLICT (ref) DO UPDATE
SET id = excluded.id, kind = excluded.kind, title = excluded.title, body = excluded.body,
    label = excluded.label, source = excluded.source, event = excluded.event, dated_ms = excluded.dated_ms;
INSERT INTO imports (kind, ref, origin, event)
SELECT 'document', :document, :file, :event WHERE :file IS NOT NULL
ON CONFLICT (kind, ref) DO UPDATE SET origin = excluded.origin, event = excluded.event;

-- name: calendar.upserted  (an older revision never replaces a newer one)
INSERT INTO calendar (entry, type, uid, recurrence, sequence, status, title, text, location, starts, ends, start_ms,
                      end_ms, all_day, timezone, rule, people, source, label, event, updated_ms)
VALUES (:entry, :type, :uid, :recurrence, :sequence, :status, :title, :text, :location, :start, :end, :start_ms,
        :end_ms, :all_day, :timezone, :rule, :people, :source, :label, :event, :ts_ms)
ON CONFLICT (entry) DO UPDATE
SET type = excluded.type, uid = excluded.uid, recurrence = excluded.recurrence, sequence = excluded.sequence,
    status = excluded.status, title = excluded.title, text = excluded.text, location = excluded.location,
    starts = excluded.starts, ends = excluded.ends, start_ms = excluded.start_ms, end_ms = excluded.end_ms,
    all_day = excluded.all_day, timezone = excluded.timezone, rule = excluded.rule, people = excluded.people,
    source = excluded.source, label = excluded.label, event = excluded.event, updated_ms = excluded.updated_ms
WHERE excluded.sequence >= calendar.sequence;
INSERT INTO searchables (id, kind, ref, title, body, label, source, event, dated_ms)
SELECT :event, 'event', 'event:' || :entry, :title, :words, :label, :source, :event, coalesce(:start_ms, :ts_ms)
WHERE EXISTS (SELECT 1 FROM calendar WHERE entry = :entry AND event = :event)
ON CONFLICT (ref) DO UPDATE
SET id = excluded.id, title = excluded.title, body = excluded.body, label = excluded.label,
    source = excluded.source, event = excluded.event, dated_ms = excluded.dated_ms;
INSERT INTO imports (kind, ref, origin, event)
SELECT 'event', :entry, :file, :event WHERE :file IS NOT NULL
ON CONFLICT (kind, ref) DO UPDATE SET origin = excluded.origin, event = excluded.event;

-- name: memory.updated
INSERT INTO memory_spaces (namespace, keys, bytes)
VALUES (:namespace, 1, length(CAST(:key AS BLOB)) + length(CAST(:value AS BLOB)))
ON CONFLICT (namespace) DO UPDATE
SET keys = keys + 1 - (SELECT count(value) FROM memory WHERE namespace = :namespace AND key = :key),
    bytes = bytes + excluded.bytes - coalesce((
        SELECT length(CAST(key AS BLOB)) + length(CAST(value AS BLOB)) FROM memory
        WHERE namespace = :namespace AND key = :key), 0);
INSERT INTO memory (namespace, key, value, entry_version, label, event, updated_ms)
VALUES (:namespace, :key, :value, :entry_version, :label, :event, :ts_ms)
ON CONFLICT (namespace, key) DO UPDATE
SET value = excluded.value, entry_version = excluded.entry_version, label = excluded.label,
    event = excluded.event, updated_ms = excluded.updated_ms;

-- name: memory.forgotten
UPDATE memory_spaces
SET keys = keys - (SELECT count(value) FROM memory WHERE namespace = :namespace AND key = :key),
    bytes = bytes - coalesce((
        SELECT length(CAST(key AS BLOB)) + length(CAST(value AS BLOB)) FROM memory
        WHERE namespace = :namespace AND key = :key), 0)
WHERE namespace = :namespace;
UPDATE memory SET value = NULL, entry_version = :entry_version, event = :event, updated_ms = :ts_ms
WHERE namespace = :namespace AND key = :key;

-- name: source.retracted  (what the facts had put into the tables is put right by pog/retract.py)
INSERT INTO retractions (event, source, facts, cascade, runs, approvals, reason, principal, retracted_ms)
VALUES (:event, :source, :facts, :cascade, :runs, :approvals, :reason, :principal, :ts_ms);
INSERT OR IGNORE INTO retracted (fact, retraction) SELECT value, :event FROM json_each(:facts);

-- name: source.restored
UPDATE retractions SET restored_event = :event WHERE event = :retraction AND restored_event IS NULL;
DELETE FROM retracted WHERE retraction = :retraction;

-- name: promise.created
INSERT INTO promises (promise, run, node, attempt, call, agent, resolver, question, choices, state, created_ms,
                      expires_ms, created_event)
VALUES (:promise, :run, :node, :attempt, :call, :agent, :resolver, :question, :choices, 'open', :ts_ms, :expires_ms,
        :event);

-- name: promise.resolved  (the first word counts)
UPDATE promises SET state = 'resolved', value = :value, principal = :principal, settled_ms = :ts_ms,
                    settled_event = :event
WHERE promise = :promise AND state = 'open';

-- name: promise.timed_out
UPDATE promises SET state = 'timed_out', reason = :reason, settled_ms = :ts_ms, settled_event = :event
WHERE promise = :promise AND state = 'open';

-- name: token.issued
INSERT INTO tokens (token, parent, holder, grants, run, expires_ms, issued_ms, issued_event)
VALUES (:token, :parent, :holder, :grants, :run, :expires_ms, :ts_ms, :event)
ON CONFLICT (token) DO NOTHING;

-- name: token.revoked
UPDATE tokens SET revoked_event = :event, reason = :reason WHERE token = :token AND revoked_event IS NULL;

-- name: policy.changed
INSERT INTO policies (event, agent, change, capability, before, after, principal, changed_ms)
VALUES (:event, :agent, :change, :capability, :before, :after, :principal, :ts_ms);

-- name: cap.audit
INSERT INTO cap_audit (event, run, agent, capability, op, target, decision, reason, node, attempt, call, audited_ms)
VALUES (:event, :run, :agent, :capability, :op, :target, :decision, :reason, :node, :attempt, :call, :ts_ms);

-- name: agent.quarantined
INSERT INTO held_agents (agent, bundle, reason, stated_by, principal, since_ms, event)
VALUES (:name, :bundle, :reason, :by, :principal, :ts_ms, :event)
ON CONFLICT (agent) DO UPDATE
SET bundle = excluded.bundle, reason = excluded.reason, stated_by = excluded.stated_by,
    principal = excluded.principal, since_ms = excluded.since_ms, event = excluded.event;

-- name: agent.released
DELETE FROM held_agents WHERE agent = :name;

-- name: agent.installed
UPDATE agents SET state = 'kept' WHERE name = :name AND variant = :variant AND state <> 'kept';
INSERT INTO agents (name, variant, version, bundle, state, publisher, key, dev, how, archive_sha256,
                    attestation_blob, principal, approval, installed_ms, event)
VALUES (:name, :variant, :agent_version, :bundle, 'current', :publisher, :key, :dev, :how, :archive_sha256,
        :attestation_blob, :principal, :approval, :ts_ms, :event)
ON CONFLICT (name, variant, bundle) DO UPDATE
SET state = 'current', publisher = excluded.publisher, key = excluded.key, dev = excluded.dev, how = excluded.how,
    archive_sha256 = excluded.archive_sha256, attestation_blob = excluded.attestation_blob,
    principal = excluded.principal, approval = excluded.approval, installed_ms = excluded.installed_ms,
    event = excluded.event;
UPDATE approvals SET state = 'done', done_event = :event WHERE approval = :approval;

-- name: agent.removed
UPDATE agents SET state = 'removed' WHERE name = :name AND variant = :variant AND state = 'current';

-- name: agent.index_seen
INSERT INTO agent_indexes (publisher, serial, expires, index_digest, seen_ms, event)
VALUES (:publisher, :serial, :expires, :index_digest, :ts_ms, :event)
ON CONFLICT (publisher) DO UPDATE
SET serial = excluded.serial, expires = excluded.expires, index_digest = excluded.index_digest,
    seen_ms = excluded.seen_ms, event = excluded.event
WHERE excluded.serial > agent_indexes.serial;

-- name: trust.changed
INSERT INTO trust_changes (event, change, subject, before, after, reason, approval, principal, changed_ms)
VALUES (:event, :change, :subject, :before, :after, :reason, :approval, :principal, :ts_ms);
UPDATE approvals SET state = 'done', done_event = :event WHERE approval = :approval;

-- name: mcp.server.added
UPDATE approvals SET state = 'done', done_event = :event WHERE approval = :approval;

-- name: mcp.tools.approved
UPDATE approvals SET state = 'done', done_event = :event WHERE approval = :approval;

-- name: topic.published  (the daemon states a message once; were it stated twice, the first counts)
INSERT INTO topic_usage (publisher, messages, bytes) VALUES (:publisher, 1, :size)
ON CONFLICT (publisher) DO UPDATE SET messages = messages + 1, bytes = bytes + excluded.bytes;
INSERT OR IGNORE INTO topic_messages (instance, msg_id, trace_id, event)
VALUES (:instance, :msg_id, :trace_id, :event);

-- name: consumer.advanced
INSERT INTO topic_consumers (owner, consumer, pattern, position, event, stated_ms)
VALUES (:owner, :consumer, :pattern, :position, :event, :ts_ms)
ON CONFLICT (owner, consumer) DO UPDATE
SET pattern = excluded.pattern, position = excluded.position, event = excluded.event,
    stated_ms = excluded.stated_ms;

-- name: consumer.removed
DELETE FROM topic_consumers WHERE owner = :owner AND consumer = :consumer;

-- name: quota.warned
INSERT INTO quotas (event, run, agent, resource, max, used, exceeded, noted_ms)
VALUES (:event, :run, :agent, :resource, :limit, :used, 0, :ts_ms);

-- name: quota.exceeded
INSERT INTO quotas (event, run, agent, resource, max, used, exceeded, noted_ms)
VALUES (:event, :run, :agent, :resource, :limit, :used, 1, :ts_ms);

-- name: agent.transition
INSERT INTO instances (agent, instance, state, run, node, attempt, reason, event, updated_ms)
VALUES (:agent, :instance, :after, :run, :node, :attempt, :reason, :event, :ts_ms)
ON CONFLICT (agent, instance) DO UPDATE
SET state = excluded.state, run = excluded.run, node = excluded.node, attempt = excluded.attempt,
    reason = excluded.reason, event = excluded.event, updated_ms = excluded.updated_ms;
