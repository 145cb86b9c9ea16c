-- name: append_event  (fails on the primary key if another writer took the place)
INSERT INTO events (id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: append_blob  (the same bytes are stored once)
INSERT OR IGNORE INTO blobs (hash, data) VALUES (?, ?)

-- name: append_head
INSERT OR REPLACE INTO heads (event_id, hash, ts_ms, public_key, signature) VALUES (?, ?, ?, ?, ?)

-- name: last_head
SELECT event_id, hash FROM heads ORDER BY event_id DESC LIMIT 1

-- name: signed_head
SELECT event_id, hash, ts_ms, signature FROM heads ORDER BY event_id DESC LIMIT 1

-- name: head
SELECT id, hash FROM events ORDER BY id DESC LIMIT 1

-- name: hash_at
SELECT hash FROM events WHERE id = ?

-- name: rows_after  (paged, so that no reader pins the write-ahead log)
SELECT id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash
FROM events WHERE id > ? ORDER BY id LIMIT ?

-- name: rows_of_run_after
SELECT id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash
FROM events WHERE run = ? AND id > ? ORDER BY id LIMIT ?

-- name: row
SELECT id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash FROM events WHERE id = ?

-- name: blob
SELECT data FROM blobs WHERE hash = ?

-- name: runs_with_prefix  (a range, so that the index answers; no text is a pattern)
SELECT DISTINCT run FROM events WHERE run >= :low AND run < :high AND kind = 'run.started' LIMIT 9

-- name: unfinished_runs
SELECT run FROM events AS started
WHERE kind = 'run.started' AND run IS NOT NULL
  AND NOT EXISTS (SELECT 1 FROM events AS ended WHERE ended.run = started.run AND ended.kind = 'run.finished')
ORDER BY id

-- name: runs  (newest first)
SELECT started.run, started.id, started.ts_ms, started.payload, ended.id, ended.ts_ms, ended.payload
FROM events AS started
LEFT JOIN events AS ended ON ended.run = started.run AND ended.kind = 'run.finished'
WHERE started.kind = 'run.started' AND started.run IS NOT NULL
ORDER BY started.id DESC LIMIT ?

-- name: events_about  (of some kinds, about one of some things; the reader writes in kinds and fields of its own)
SELECT id FROM events
WHERE kind IN (:kinds) AND id <= :up_to AND (:about) IN (SELECT value FROM json_each(:names)) ORDER BY id
