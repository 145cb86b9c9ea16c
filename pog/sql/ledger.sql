-- The ledger, version 1. Rows are only ever added. Times are unix milliseconds; hash and prev_hash are BLAKE3
-- (pog/chain.py says over what); payload and provenance are RFC 8785 text.

CREATE TABLE events (
    id         INTEGER PRIMARY KEY,
    ts_ms      INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    scope      TEXT    NOT NULL,
    run        TEXT,
    payload    TEXT    NOT NULL,
    provenance TEXT    NOT NULL,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    prev_hash  BLOB    NOT NULL CHECK (length(prev_hash) = 32)
) STRICT;

CREATE INDEX events_by_run ON events (run, id) WHERE run IS NOT NULL;
CREATE INDEX events_by_kind ON events (kind, id);

-- The exact bytes that events point to, by their BLAKE3; written in the same transaction as the event.
CREATE TABLE blobs (
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    data BLOB NOT NULL
) STRICT;

-- Signed heads: whoever rewrites the chain cannot sign it again.
CREATE TABLE heads (
    event_id   INTEGER PRIMARY KEY,
    hash       BLOB    NOT NULL CHECK (length(hash) = 32),
    ts_ms      INTEGER NOT NULL,
    public_key BLOB    NOT NULL CHECK (length(public_key) = 32),
    signature  BLOB    NOT NULL CHECK (length(signature) = 64)
) STRICT;
