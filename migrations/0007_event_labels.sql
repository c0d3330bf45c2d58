-- An event has its labels in its row, name and value each ended by NUL: as rows of their own they
-- took up to four times their size, since one of a kibibyte has a page to itself.

ALTER TABLE sandbox_events ADD COLUMN labels BLOB NOT NULL DEFAULT x'';

UPDATE sandbox_events SET labels = packed.labels FROM (
        SELECT sequence, CAST(group_concat(name || char(0) || value || char(0), '') AS BLOB) AS labels
        FROM sandbox_event_labels GROUP BY sequence) AS packed
        WHERE packed.sequence = sandbox_events.sequence;

DROP TABLE sandbox_event_labels;

-- Counted anew, by event_size() of the store.
UPDATE sandbox_events SET size_bytes = 512 + iif(length(labels) > 3000,
        (length(labels) / 4096 + 1) * 4096, length(labels));

UPDATE owner_totals SET event_bytes = coalesce(
        (SELECT sum(size_bytes) FROM sandbox_events WHERE sandbox_events.owner = owner_totals.owner), 0);
