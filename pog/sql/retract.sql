-- How what was learnt of one thing leaves the views, before the facts that still count are folded again. :key is
-- the thing's name; for memory :namespace and :name are its parts.

-- name: contact
DELETE FROM contacts WHERE contact = :key;
DELETE FROM contact_emails WHERE contact = :key;
DELETE FROM searchables WHERE ref = 'contact:' || :key;
DELETE FROM imports WHERE kind = 'contact' AND ref = :key;

-- name: document
DELETE FROM documents WHERE document = :key;
DELETE FROM searchables WHERE ref = 'document:' || :key;
DELETE FROM imports WHERE kind = 'document' AND ref = :key;

-- name: event
DELETE FROM calendar WHERE entry = :key;
DELETE FROM searchables WHERE ref = 'event:' || :key;
DELETE FROM imports WHERE kind = 'event' AND ref = :key;

-- name: memory
UPDATE memory_spaces
SET keys = keys - (SELECT count(value) FROM memory WHERE namespace = :namespace AND key = :name),
    bytes = bytes - coalesce((
        SELECT length(CAST(key AS BLOB)) + length(CAST(value AS BLOB)) FROM memory
        WHERE namespace = :namespace AND key = :name), 0)
WHERE namespace = :namespace;
DELETE FROM memory WHERE namespace = :namespace AND key = :name;

-- name: memory.version  (beyond every version somebody may have read: a write that names one is refused)
INSERT INTO memory (namespace, key, value, entry_version, label, event, updated_ms)
VALUES (:namespace, :name, NULL, :highest + (SELECT count(*) + count(restored_event) FROM retractions), NULL, :event,
        :ts_ms)
ON CONFLICT (namespace, key) DO UPDATE SET entry_version = excluded.entry_version;
