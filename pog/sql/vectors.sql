-- Vectors of what can be searched for, made by one embedder from the views: a file of their own that may be
-- deleted at any time. `item` is searchables.id, the ledger id of the source.

CREATE TABLE meta (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    embedder     TEXT    NOT NULL,
    dimensions   INTEGER NOT NULL,
    cursor       INTEGER NOT NULL, -- every searchable up to here has its vectors
    ledger_event INTEGER NOT NULL, -- an event of the ledger these are of,
    ledger_hash  BLOB    NOT NULL  -- and its hash
) STRICT;

CREATE TABLE items (
    item INTEGER PRIMARY KEY,
    ref  TEXT NOT NULL,
    kind TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX items_by_ref ON items (ref);

-- One bit of each number: what is looked through. Small rows, so that a scan reads little.
CREATE TABLE codes (
    id   INTEGER PRIMARY KEY, -- item * 16 + number of the passage
    kind TEXT NOT NULL,
    bits BLOB NOT NULL
) STRICT;

-- The numbers themselves: what the nearest are compared by.
CREATE TABLE vectors (
    id      INTEGER PRIMARY KEY,
    square  INTEGER NOT NULL, -- of its length
    numbers BLOB NOT NULL
) STRICT;
