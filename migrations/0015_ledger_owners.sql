-- How many rows of the ledger each owner has: above the bound, those of who has most go first. Identities have holes from then on.

ALTER TABLE owner_totals ADD COLUMN n_usage_records INTEGER NOT NULL DEFAULT 0;
ALTER TABLE owner_totals ADD COLUMN deleted_usage_id INTEGER NOT NULL DEFAULT 0; -- its rows up to this one may be deleted, too

INSERT INTO owner_totals (owner, n_usage_records, deleted_sequence)
        SELECT owner, count(*), (SELECT deleted_sequence FROM owner_totals WHERE owner = '')
        FROM usage_records WHERE true GROUP BY owner
        ON CONFLICT (owner) DO UPDATE SET n_usage_records = excluded.n_usage_records;

CREATE TRIGGER usage_record_counts AFTER INSERT ON usage_records BEGIN
        INSERT INTO owner_totals (owner, n_usage_records, deleted_sequence)
                SELECT NEW.owner, 1, deleted_sequence FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_usage_records = n_usage_records + 1;
END;

CREATE TRIGGER usage_record_counts_no_more AFTER DELETE ON usage_records BEGIN
        UPDATE owner_totals SET n_usage_records = n_usage_records - 1 WHERE owner = OLD.owner;
END;

DROP TRIGGER usage_record_is_kept;

CREATE TRIGGER usage_record_is_kept BEFORE DELETE ON usage_records
WHEN OLD.record_id > (SELECT deleted_id FROM usage_retention)
AND OLD.record_id > coalesce((SELECT deleted_usage_id FROM owner_totals WHERE owner = OLD.owner), 0) BEGIN
        SELECT RAISE(ABORT, 'the ledger is only added to');
END;
