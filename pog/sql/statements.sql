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

-- name: told_rows  (of a run, between two ids)
SELECT id, ts_ms, actor, kind, version, run, payload, provenance
FROM events WHERE run = ? AND id > ? AND id <= ? ORDER BY id LIMIT ?

-- name: row
SELECT id, ts_ms, actor, kind, version, scope, run, payload, provenance, hash, prev_hash FROM events WHERE id = ?

-- name: blob
SELECT data FROM blobs WHERE hash = ?

-- name: runs_with_prefix  (a range, so that the index answers; no text is a pattern)
SELECT DISTINCT run FROM events WHERE run >= :low AND run < :high AND kind = 'run.started' LIMIT 9

-- name: runs_below  (the runs nested in a run, at any depth)
SELECT run FROM events
WHERE kind = 'run.started' AND run IS NOT NULL AND json_extract(payload, '$.parent.root') = ? ORDER BY id

-- name: signed_head_above  (by the present key: an earlier one is believed by whoever has the whole ledger)
SELECT event_id, hash, ts_ms, public_key, signature FROM heads
WHERE event_id >= ? AND public_key = (SELECT public_key FROM heads ORDER BY event_id DESC LIMIT 1)
ORDER BY event_id LIMIT 1

-- name: hashes_from  (the chain without what it is of: paged)
SELECT id, hash FROM events WHERE id BETWEEN ? AND ? ORDER BY id LIMIT ?

-- name: unfinished_runs  (the ends are looked through once, and not once for each run)
SELECT run FROM events
WHERE kind = 'run.started' AND run IS NOT NULL
  AND run NOT IN (SELECT run FROM events WHERE kind = 'run.finished' AND run IS NOT NULL)
ORDER BY id

-- name: runs  (newest first; those nested in another are shown with it; the ends are looked through once)
WITH started AS MATERIALIZED (
  SELECT run, id, ts_ms, payload FROM events
  WHERE kind = 'run.started' AND run IS NOT NULL
    AND json_extract(payload, '$.parent') IS NULL
  ORDER BY id DESC LIMIT ?
), ended AS MATERIALIZED (
  SELECT run, id, ts_ms, payload FROM events
  WHERE kind = 'run.finished' AND id > (SELECT min(id) FROM started)
    AND run IN (SELECT run FROM started)
)
SELECT started.run, started.id, started.ts_ms, started.payload, ended.id, ended.ts_ms, ended.payload
FROM started LEFT JOIN ended ON ended.run = started.run
ORDER BY started.id DESC

-- name: runs_inside  (those that serve a node of a run, oldest first)
WITH started AS MATERIALIZED (
  SELECT run, id, ts_ms, payload FROM events
  WHERE kind = 'run.started' AND run IS NOT NULL
    AND json_extract(payload, '$.parent.run') = ?
  ORDER BY id LIMIT ?
), ended AS MATERIALIZED (
  SELECT run, id, ts_ms, payload FROM events
  WHERE kind = 'run.finished' AND id > (SELECT min(id) FROM started)
    AND run IN (SELECT run FROM started)
)
SELECT started.run, started.id, started.ts_ms, started.payload, ended.id, ended.ts_ms, ended.payload
FROM started LEFT JOIN ended ON ended.run = started.run
ORDER BY started.id

-- name: runs_by  (newest first)
WITH started AS MATERIALIZED (
  SELECT run, id, ts_ms, payload FROM events
  WHERE kind = 'run.started' AND run IS NOT NULL AND actor = ?
  ORDER BY id DESC LIMIT ?
), ended AS MATERIALIZED (
  SELECT run, id, ts_ms, payload FROM events
  WHERE kind = 'run.finished' AND id > (SELECT min(id) FROM started)
    AND run IN (SELECT run FROM started)
)
SELECT started.run, started.id, started.ts_ms, started.payload, ended.id, ended.ts_ms, ended.payload
FROM started LEFT JOIN ended ON ended.run = started.run
ORDER BY started.id DESC

-- name: events_about  (of some kinds, about one of some things; the reader writes in kinds and fields of its own)
SELECT id FROM events
WHERE kind IN (:kinds) AND id <= :up_to AND (:about) IN (SELECT value FROM json_each(:names)) ORDER BY id

-- name: trigger_marks  (what accounts for a due time; a run that somebody asked for accounts for none)
SELECT max(id) FROM events
WHERE kind IN ('trigger.fired', 'trigger.missed') AND json_extract(payload, '$.cause.by') IS NULL
  AND coalesce(json_extract(payload, '$.times'), 1) > 0
GROUP BY json_extract(payload, '$.trigger')
UNION
SELECT max(id) FROM events WHERE kind = 'trigger.fired' GROUP BY json_extract(payload, '$.trigger')
UNION
SELECT max(id) FROM events WHERE kind = 'trigger.missed' GROUP BY json_extract(payload, '$.trigger')
ORDER BY 1

-- name: fired_beyond
SELECT json_extract(payload, '$.trigger'), json_extract(payload, '$.due_ms') FROM events
WHERE kind = 'trigger.fired' AND json_extract(payload, '$.due_ms') > ?

-- name: spent_by  (what finished runs of some principals have cost: when each ended, and how much)
SELECT ended.ts_ms, (SELECT coalesce(sum(json_extract(called.payload, '$.cost_micro_usd')), 0)
                     FROM events AS called WHERE called.run = ended.run AND called.kind = 'model.called')
FROM events AS ended
JOIN events AS started ON started.run = ended.run AND started.kind = 'run.started'
WHERE ended.kind = 'run.finished' AND ended.ts_ms > :since
  AND substr(json_extract(started.payload, '$.principal'), 1, length(:principal)) = :principal
