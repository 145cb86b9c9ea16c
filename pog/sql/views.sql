-- The views, version 4: a fold of the ledger, kept in a file of their own so that they can be thrown away.
-- Times are unix milliseconds, money millionths of a US dollar. Columns named *_event hold ledger ids; columns
-- that hold a JSON text say so. Everything in here can be computed again from the ledger (`rlp kb rebuild`).

-- Where the fold stands: one row.
CREATE TABLE cursor (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    event    INTEGER NOT NULL,
    hash     BLOB    NOT NULL
) STRICT;
INSERT INTO cursor VALUES (1, 0, zeroblob(32));

-- Events that could not be folded, and why. They never stop the fold.
CREATE TABLE quarantine (
    event INTEGER PRIMARY KEY,
    kind  TEXT NOT NULL,
    error TEXT NOT NULL
) STRICT;

CREATE TABLE runs (
    run               TEXT PRIMARY KEY,
    opening           TEXT NOT NULL,
    definition_digest TEXT NOT NULL,
    params            TEXT NOT NULL,              -- JSON
    principal         TEXT NOT NULL,
    via               TEXT,
    prompt            TEXT,
    parent_run        TEXT,                       -- of a nested opening: the attempt it serves
    parent_node       TEXT,
    parent_attempt    INTEGER,
    root_run          TEXT NOT NULL,              -- the run at the top of the tree: itself, where nobody nested it
    fork_of           TEXT,
    state             TEXT NOT NULL,              -- running, waiting, cancelling, succeeded, failed, cancelled
    clause            TEXT,
    output_digest     TEXT,
    error_code        TEXT,
    error_message     TEXT,
    started_ms        INTEGER NOT NULL,
    finished_ms       INTEGER,
    started_event     INTEGER NOT NULL,
    finished_event    INTEGER,
    resumed           INTEGER NOT NULL DEFAULT 0, -- how often a daemon took it up again
    cost_micro_usd    INTEGER NOT NULL DEFAULT 0,
    input_tokens      INTEGER NOT NULL DEFAULT 0,
    output_tokens     INTEGER NOT NULL DEFAULT 0,
    hostcalls         INTEGER NOT NULL DEFAULT 0,
    messages          INTEGER NOT NULL DEFAULT 0,
    message_bytes     INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX runs_by_root ON runs (root_run);

CREATE TABLE nodes (
    run             TEXT    NOT NULL,
    node            TEXT    NOT NULL,
    agent           TEXT,
    agent_version   TEXT,
    variant         TEXT,
    bundle_digest   TEXT,
    state           TEXT    NOT NULL, -- pending, running, waiting, succeeded, failed, timed_out, skipped, cancelled
    attempt         INTEGER NOT NULL DEFAULT 0,
    started_ms      INTEGER,
    finished_ms     INTEGER,
    scheduled_event INTEGER,
    finished_event  INTEGER,
    input_digest    TEXT,
    output_digest   TEXT,
    error_code      TEXT,
    error_message   TEXT,
    reason          TEXT,
    fuel            INTEGER NOT NULL DEFAULT 0,
    calls           INTEGER NOT NULL DEFAULT 0,
    items           INTEGER,          -- of a node that maps over a list
    PRIMARY KEY (run, node)
) STRICT;

-- What agents of a run said to one another.
CREATE TABLE talk (
    run          TEXT    NOT NULL,
    message      TEXT    NOT NULL,
    node         TEXT    NOT NULL, -- who said it
    attempt      INTEGER NOT NULL,
    to_          TEXT    NOT NULL, -- node/<id> or talk/<name>
    act          TEXT    NOT NULL,
    conversation TEXT    NOT NULL,
    in_reply_to  TEXT,
    size         INTEGER NOT NULL,
    event        INTEGER NOT NULL,
    posted_ms    INTEGER NOT NULL,
    PRIMARY KEY (run, message)
) STRICT;

-- What starts runs by itself.
CREATE TABLE triggers (
    trigger_      TEXT    PRIMARY KEY,
    opening       TEXT    NOT NULL,
    cron          TEXT,
    zone          TEXT,
    watch         TEXT,               -- JSON
    principal     TEXT    NOT NULL,
    fired         INTEGER NOT NULL DEFAULT 0,
    missed        INTEGER NOT NULL DEFAULT 0,
    last_due_ms   INTEGER,
    last_run      TEXT,
    last_event    INTEGER,
    event         INTEGER NOT NULL,
    set_ms        INTEGER NOT NULL,
    paused_ms     INTEGER,
    removed_event INTEGER
) STRICT;

CREATE TABLE contacts (
    contact        TEXT PRIMARY KEY,
    name           TEXT    NOT NULL,
    org            TEXT    NOT NULL,
    title          TEXT    NOT NULL,
    note           TEXT    NOT NULL,
    emails         TEXT    NOT NULL, -- JSON
    phones         TEXT    NOT NULL, -- JSON
    nicknames      TEXT    NOT NULL, -- JSON
    source         TEXT    NOT NULL,
    label          TEXT,
    event          INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL
) STRICT;

CREATE TABLE contact_emails (
    contact  TEXT    NOT NULL,
    position INTEGER NOT NULL,
    email    TEXT    NOT NULL,
    PRIMARY KEY (contact, position)
) STRICT;
CREATE INDEX contact_emails_by_email ON contact_emails (email COLLATE NOCASE);

CREATE TABLE documents (
    document       TEXT PRIMARY KEY,
    type           TEXT    NOT NULL, -- note, mail, record
    title          TEXT    NOT NULL,
    text           TEXT    NOT NULL,
    people         TEXT    NOT NULL, -- JSON
    written_ms     INTEGER,
    source         TEXT    NOT NULL,
    content_digest TEXT    NOT NULL,
    label          TEXT,
    event          INTEGER NOT NULL,
    updated_ms     INTEGER NOT NULL
) STRICT;

CREATE TABLE calendar (
    entry      TEXT PRIMARY KEY,
    type       TEXT    NOT NULL, -- event, todo
    uid        TEXT    NOT NULL,
    recurrence TEXT    NOT NULL, -- the instance of the series it replaces; empty: the series
    sequence   INTEGER NOT NULL,
    status     TEXT    NOT NULL, -- confirmed, tentative, cancelled, needs-action, in-process, completed, or empty
    title      TEXT    NOT NULL,
    text       TEXT    NOT NULL,
    location   TEXT    NOT NULL,
    starts     TEXT    NOT NULL,
    ends       TEXT    NOT NULL,
    start_ms   INTEGER,
    end_ms     INTEGER,
    all_day    INTEGER NOT NULL,
    timezone   TEXT    NOT NULL,
    rule       TEXT    NOT NULL, -- as written; nothing is expanded
    people     TEXT    NOT NULL, -- JSON
    source     TEXT    NOT NULL,
    label      TEXT,
    event      INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX calendar_by_start ON calendar (start_ms);

-- Which file each imported thing was last read from: what has vanished from it can be told.
CREATE TABLE imports (
    kind   TEXT    NOT NULL, -- contact, document, event
    ref    TEXT    NOT NULL,
    origin TEXT    NOT NULL,
    event  INTEGER NOT NULL,
    PRIMARY KEY (kind, ref)
) STRICT, WITHOUT ROWID;
CREATE INDEX imports_by_origin ON imports (origin, kind, ref);

CREATE TABLE artifacts (
    event      INTEGER PRIMARY KEY,
    run        TEXT,
    node       TEXT    NOT NULL,
    port       TEXT,
    name       TEXT    NOT NULL,
    media_type TEXT    NOT NULL,
    blob       TEXT    NOT NULL,
    size       INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE approvals (
    approval          TEXT PRIMARY KEY,
    run               TEXT,
    node              TEXT    NOT NULL,
    attempt           INTEGER NOT NULL,
    call              INTEGER NOT NULL,
    op                TEXT    NOT NULL,
    effect            TEXT    NOT NULL,
    key               TEXT    NOT NULL,
    action            TEXT    NOT NULL, -- JSON
    action_digest     TEXT    NOT NULL,
    content_blob      TEXT    NOT NULL,
    content_type      TEXT    NOT NULL,
    state             TEXT    NOT NULL, -- waiting, approved, denied, expired, undone, voided, claimed, done
    requested_ms      INTEGER NOT NULL,
    expires_ms        INTEGER NOT NULL,
    decided_ms        INTEGER,
    principal         TEXT,
    note              TEXT,
    dispatch_after_ms INTEGER,
    requested_event   INTEGER NOT NULL,
    decided_event     INTEGER,
    claimed_event     INTEGER,
    done_event        INTEGER
) STRICT;

-- One row for each host call of each attempt. An effect that was admitted and not delivered has an unknown outcome.
CREATE TABLE hostcalls (
    run             TEXT    NOT NULL,
    node            TEXT    NOT NULL,
    attempt         INTEGER NOT NULL,
    call            INTEGER NOT NULL,
    op              TEXT    NOT NULL,
    effect          TEXT    NOT NULL,
    key             TEXT,
    state           TEXT    NOT NULL, -- admitted, delivered
    ok              INTEGER,
    args_digest     TEXT    NOT NULL,
    result_digest   TEXT,
    request_bytes   INTEGER NOT NULL,
    response_bytes  INTEGER,
    fuel            INTEGER NOT NULL,
    reserved_micro_usd INTEGER,                   -- money held for it when it was admitted
    reserved_for    TEXT,                         -- provider:model of that; empty where nothing was reserved
    admitted_event  INTEGER,
    delivered_event INTEGER,
    PRIMARY KEY (run, node, attempt, call)
) STRICT;

CREATE TABLE model_calls (
    event              INTEGER PRIMARY KEY,
    run                TEXT,
    node               TEXT    NOT NULL,
    attempt            INTEGER NOT NULL,
    call               INTEGER NOT NULL,
    provider           TEXT    NOT NULL,
    model              TEXT    NOT NULL,
    generated          INTEGER NOT NULL,
    request_digest     TEXT    NOT NULL,
    answer_digest      TEXT    NOT NULL,
    input_tokens       INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    estimated          INTEGER NOT NULL,
    reserved_micro_usd INTEGER NOT NULL,
    cost_micro_usd     INTEGER NOT NULL,
    price_version      TEXT    NOT NULL,
    finish             TEXT    NOT NULL,
    route              TEXT    NOT NULL,          -- why this model, in words
    source             TEXT    NOT NULL,          -- asked, cache, cassette
    saved_micro_usd    INTEGER NOT NULL,          -- what the answer had cost when it was first given
    called_ms          INTEGER NOT NULL
) STRICT;

CREATE TABLE emails (
    event        INTEGER PRIMARY KEY,
    run          TEXT,
    approval     TEXT    NOT NULL,
    provider     TEXT    NOT NULL,
    message_id   TEXT    NOT NULL,
    recipients   TEXT    NOT NULL, -- JSON
    subject      TEXT    NOT NULL,
    content_blob TEXT    NOT NULL,
    location     TEXT    NOT NULL,
    sent_ms      INTEGER NOT NULL
) STRICT;

CREATE TABLE messages (
    event       INTEGER PRIMARY KEY,
    run         TEXT,
    sender      TEXT    NOT NULL,
    receiver    TEXT    NOT NULL,
    topic       TEXT    NOT NULL,
    type        TEXT    NOT NULL,
    schema_id   INTEGER NOT NULL,
    msg_id      INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    body_digest TEXT    NOT NULL,
    node        TEXT,
    attempt     INTEGER,
    sent_ms     INTEGER NOT NULL
) STRICT;

CREATE TABLE memory (
    namespace     TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    value         TEXT,             -- JSON; NULL: forgotten
    entry_version INTEGER NOT NULL,
    label         TEXT,             -- trust label: the lowest of what it was made from
    event         INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT;

-- What a person took back, and whether it counts again.
CREATE TABLE retractions (
    event          INTEGER PRIMARY KEY,
    source         INTEGER NOT NULL,
    facts          TEXT    NOT NULL, -- JSON: ledger ids
    cascade        INTEGER NOT NULL,
    runs           TEXT    NOT NULL, -- JSON
    approvals      TEXT    NOT NULL, -- JSON
    reason         TEXT    NOT NULL,
    principal      TEXT    NOT NULL,
    retracted_ms   INTEGER NOT NULL,
    restored_event INTEGER
) STRICT;

-- Facts that do not count at present.
CREATE TABLE retracted (
    fact       INTEGER NOT NULL,
    retraction INTEGER NOT NULL,
    PRIMARY KEY (fact, retraction)
) STRICT, WITHOUT ROWID;

-- What each namespace of memory holds: keys with a value, and bytes of keys and values.
CREATE TABLE memory_spaces (
    namespace TEXT PRIMARY KEY,
    keys      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL
) STRICT;

CREATE TABLE promises (
    promise       TEXT PRIMARY KEY,
    run           TEXT,
    node          TEXT    NOT NULL,
    attempt       INTEGER NOT NULL,
    call          INTEGER NOT NULL,
    agent         TEXT    NOT NULL,
    resolver      TEXT    NOT NULL, -- run, operator
    question      TEXT    NOT NULL,
    choices       TEXT    NOT NULL, -- JSON
    state         TEXT    NOT NULL, -- open, resolved, timed_out
    value         TEXT,             -- JSON
    principal     TEXT,
    reason        TEXT,             -- deadline, run_over
    created_ms    INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL,
    settled_ms    INTEGER,
    created_event INTEGER NOT NULL,
    settled_event INTEGER
) STRICT;

CREATE TABLE tokens (
    token         TEXT PRIMARY KEY,
    parent        TEXT,
    holder        TEXT    NOT NULL,
    grants        TEXT    NOT NULL, -- JSON
    run           TEXT,
    expires_ms    INTEGER NOT NULL,
    issued_ms     INTEGER NOT NULL,
    issued_event  INTEGER NOT NULL,
    revoked_event INTEGER,          -- of this very token; what is narrowed from a revoked one is void too
    reason        TEXT
) STRICT;

CREATE TABLE policies (
    event      INTEGER PRIMARY KEY,
    agent      TEXT    NOT NULL,
    change     TEXT    NOT NULL, -- grant, revoke, shrink
    capability TEXT    NOT NULL,
    before     TEXT    NOT NULL, -- JSON
    after      TEXT    NOT NULL, -- JSON
    principal  TEXT    NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE cap_audit (
    event      INTEGER PRIMARY KEY,
    run        TEXT,
    agent      TEXT    NOT NULL,
    capability TEXT    NOT NULL,
    op         TEXT    NOT NULL,
    target     TEXT    NOT NULL,
    decision   TEXT    NOT NULL, -- allowed, denied, empty
    reason     TEXT    NOT NULL,
    node       TEXT,
    attempt    INTEGER,
    call       INTEGER,
    audited_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE quotas (
    event    INTEGER PRIMARY KEY,
    run      TEXT,
    agent    TEXT    NOT NULL,
    resource TEXT    NOT NULL,
    max      INTEGER NOT NULL,
    used     INTEGER NOT NULL,
    exceeded INTEGER NOT NULL,
    noted_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE instances (
    agent      TEXT    NOT NULL,
    instance   TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    run        TEXT,
    node       TEXT,
    attempt    INTEGER,
    reason     TEXT    NOT NULL,
    event      INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (agent, instance)
) STRICT;

-- Agents that may not run until the operator releases them.
CREATE TABLE held_agents (
    agent     TEXT    NOT NULL PRIMARY KEY,
    bundle    TEXT,
    reason    TEXT    NOT NULL,
    stated_by TEXT    NOT NULL, -- breaker, operator
    principal TEXT    NOT NULL,
    since_ms  INTEGER NOT NULL,
    event     INTEGER NOT NULL
) STRICT;

-- Every bundle that is or was installed; one of each name and variant may be current. `rlp kb query` sees it.
CREATE TABLE agents (
    name           TEXT    NOT NULL,
    variant        TEXT    NOT NULL,
    version        TEXT    NOT NULL,
    bundle         TEXT    NOT NULL,
    state          TEXT    NOT NULL, -- current, kept, removed
    publisher      TEXT    NOT NULL,
    key            TEXT    NOT NULL,
    dev            INTEGER NOT NULL,
    how            TEXT    NOT NULL, -- install, upgrade, downgrade, rollback
    archive_sha256 TEXT    NOT NULL,
    attestation_blob TEXT  NOT NULL,
    principal      TEXT    NOT NULL,
    approval       TEXT,
    installed_ms   INTEGER NOT NULL,
    event          INTEGER NOT NULL,
    PRIMARY KEY (name, variant, bundle)
) STRICT;

-- The newest index of each publisher that was judged good; an older one is refused.
CREATE TABLE agent_indexes (
    publisher    TEXT PRIMARY KEY,
    serial       INTEGER NOT NULL,
    expires      TEXT    NOT NULL,
    index_digest TEXT    NOT NULL,
    seen_ms      INTEGER NOT NULL,
    event        INTEGER NOT NULL
) STRICT;

-- Who was allowed to publish agents, and since when not.
CREATE TABLE trust_changes (
    event      INTEGER PRIMARY KEY,
    change     TEXT    NOT NULL, -- add, remove, revoke
    subject    TEXT    NOT NULL,
    before     TEXT    NOT NULL, -- JSON
    after      TEXT    NOT NULL, -- JSON
    reason     TEXT    NOT NULL,
    approval   TEXT,
    principal  TEXT    NOT NULL,
    changed_ms INTEGER NOT NULL
) STRICT;

-- What was published on durable topics, by its identity: the same message is recorded once. Ids are hex text
-- of one length, so that their order is their value's.
CREATE TABLE topic_messages (
    instance   TEXT    NOT NULL,
    msg_id     TEXT    NOT NULL,
    trace_id   TEXT    NOT NULL,
    event      INTEGER NOT NULL,
    PRIMARY KEY (instance, msg_id, trace_id)
) STRICT, WITHOUT ROWID;

-- What each publisher's messages hold of the ledger.
CREATE TABLE topic_usage (
    publisher  TEXT PRIMARY KEY,
    messages   INTEGER NOT NULL,
    bytes      INTEGER NOT NULL
) STRICT;

-- How far each durable consumer has acknowledged, as last stated.
CREATE TABLE topic_consumers (
    owner      TEXT    NOT NULL,
    consumer   TEXT    NOT NULL,
    pattern    TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    stated_ms  INTEGER NOT NULL,
    PRIMARY KEY (owner, consumer)
) STRICT;

-- What can be found by words. `ref` is the contact, document or calendar event; `id` is the ledger id of the
-- source, so that newer ones have larger ids and a change gives another one.
CREATE TABLE searchables (
    id         INTEGER PRIMARY KEY,
    kind       TEXT    NOT NULL, -- contact, note, mail, record, event
    ref        TEXT    NOT NULL,
    title      TEXT    NOT NULL,
    body       TEXT    NOT NULL,
    label      TEXT,             -- trust label of the source
    source     TEXT    NOT NULL DEFAULT '',
    event      INTEGER NOT NULL,
    dated_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX searchables_by_date ON searchables (dated_ms);
CREATE UNIQUE INDEX searchables_by_ref ON searchables (ref);

CREATE VIRTUAL TABLE search USING fts5 (
    title, body, content = 'searchables', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER searchables_added AFTER INSERT ON searchables BEGIN
    INSERT INTO search (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER searchables_changed AFTER UPDATE ON searchables BEGIN
    INSERT INTO search (search, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
    INSERT INTO search (rowid, title, body) VALUES (new.id, new.title, new.body);
END;
CREATE TRIGGER searchables_removed AFTER DELETE ON searchables BEGIN
    INSERT INTO search (search, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
END;
