-- Where every fact leads and what it is called: looked up instead of searched for. A file of its own, made from
-- the ledger, that may be deleted at any time.

CREATE TABLE cursor (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    event INTEGER NOT NULL,
    hash  BLOB    NOT NULL
) STRICT;
INSERT INTO cursor VALUES (1, 0, zeroblob(32));

-- The recorded causes, the other way round.
CREATE TABLE edges (
    cause  INTEGER NOT NULL,
    effect INTEGER NOT NULL,
    PRIMARY KEY (cause, effect)
) STRICT, WITHOUT ROWID;

-- Names of facts: the first 64 bits of a digest, or of the BLAKE2 of a text. What is found is read again and
-- compared: equal bits are no proof.
CREATE TABLE names (
    space INTEGER NOT NULL, -- pog/trace.py
    key   INTEGER NOT NULL,
    event INTEGER NOT NULL,
    PRIMARY KEY (space, key, event)
) STRICT, WITHOUT ROWID;
