-- What was used, for good. The numbers of types are those of server/store/records.h. Rows outlive the
-- sandboxes and executions that they tell of. Executions that ended before this migration have no
-- row: what they used is in the first row of their sandbox, if that still lives, else in none.
-- Keys that could do all that there was may read it, too (bit 5, usage:read).

UPDATE api_keys SET scopes = scopes | 32 WHERE scopes & 31 = 31;

ALTER TABLE executions ADD COLUMN used_cpu_user_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_cpu_system_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_memory_byte_seconds INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_oom_kills INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_throttled_periods INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_throttled_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_scheduled_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_wait_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_context_switches INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_earlier_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_rss_peak_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_sent_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_received_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE executions ADD COLUMN used_missing INTEGER NOT NULL DEFAULT 0;

-- Only inserted. Identities have no holes, for rows are deleted oldest first: how many there are is
-- known without counting.
CREATE TABLE usage_records (
        record_id INTEGER PRIMARY KEY AUTOINCREMENT, -- in the order of their coming
        record_time_usec INTEGER NOT NULL, -- when it came: never before a row that came earlier, nor before its end_time_usec
        sandbox_id TEXT NOT NULL CHECK (sandbox_id <> ''),
        sequence INTEGER NOT NULL CHECK (sequence > 0), -- counts those of its sandbox
        type INTEGER NOT NULL CHECK (type BETWEEN 1 AND 3),
        execution_id TEXT CHECK (execution_id <> ''),
        context_id TEXT CHECK (context_id <> ''),
        owner TEXT NOT NULL CHECK (owner <> ''),
        start_time_usec INTEGER NOT NULL,
        end_time_usec INTEGER NOT NULL,
        outcome INTEGER NOT NULL,
        cause INTEGER NOT NULL,
        is_incomplete INTEGER NOT NULL CHECK (is_incomplete IN (0, 1)),
        cpu_usec INTEGER NOT NULL CHECK (cpu_usec >= 0),
        cpu_user_usec INTEGER NOT NULL CHECK (cpu_user_usec >= 0),
        cpu_system_usec INTEGER NOT NULL CHECK (cpu_system_usec >= 0),
        wall_usec INTEGER NOT NULL CHECK (wall_usec >= 0),
        memory_peak_bytes INTEGER NOT NULL CHECK (memory_peak_bytes >= 0),
        memory_byte_seconds INTEGER NOT NULL CHECK (memory_byte_seconds >= 0),
        oom_kills INTEGER NOT NULL CHECK (oom_kills >= 0),
        throttled_periods INTEGER NOT NULL CHECK (throttled_periods >= 0),
        throttled_usec INTEGER NOT NULL CHECK (throttled_usec >= 0),
        scheduled_usec INTEGER NOT NULL CHECK (scheduled_usec >= 0),
        wait_usec INTEGER NOT NULL CHECK (wait_usec >= 0),
        context_switches INTEGER NOT NULL CHECK (context_switches >= 0),
        earlier_usec INTEGER NOT NULL CHECK (earlier_usec >= 0),
        rss_peak_bytes INTEGER NOT NULL CHECK (rss_peak_bytes >= 0),
        sent_bytes INTEGER NOT NULL CHECK (sent_bytes >= 0),
        received_bytes INTEGER NOT NULL CHECK (received_bytes >= 0),
        stdout_bytes INTEGER NOT NULL CHECK (stdout_bytes >= 0),
        stderr_bytes INTEGER NOT NULL CHECK (stderr_bytes >= 0),
        rich_bytes INTEGER NOT NULL CHECK (rich_bytes >= 0),
        missing INTEGER NOT NULL,
        CHECK ((type = 1) = (execution_id IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX usage_records_of_sandbox ON usage_records (sandbox_id, sequence);
CREATE UNIQUE INDEX usage_records_of_execution ON usage_records (execution_id)
        WHERE execution_id IS NOT NULL;
CREATE UNIQUE INDEX usage_records_of_end ON usage_records (sandbox_id) WHERE type = 3;
CREATE INDEX usage_records_of_owner ON usage_records (owner); -- and record_id, as in every index

-- What all rows of a sandbox add up to, with those that are not kept any more: of one that has ended
-- what it used. Its row goes with the last of them, or with the sandbox, whichever is kept longer.
CREATE TABLE usage_sandboxes (
        sandbox_id TEXT NOT NULL PRIMARY KEY CHECK (sandbox_id <> ''),
        owner TEXT NOT NULL CHECK (owner <> ''),
        n_records INTEGER NOT NULL DEFAULT 0,
        billed_time_usec INTEGER NOT NULL, -- until then its life is in rows
        end_time_usec INTEGER NOT NULL DEFAULT 0, -- zero: it lives
        end_cause INTEGER NOT NULL DEFAULT 0,
        end_message TEXT NOT NULL DEFAULT '',
        cpu_usec INTEGER NOT NULL DEFAULT 0,
        cpu_user_usec INTEGER NOT NULL DEFAULT 0,
        cpu_system_usec INTEGER NOT NULL DEFAULT 0,
        wall_usec INTEGER NOT NULL DEFAULT 0,
        memory_peak_bytes INTEGER NOT NULL DEFAULT 0,
        memory_byte_seconds INTEGER NOT NULL DEFAULT 0,
        oom_kills INTEGER NOT NULL DEFAULT 0,
        throttled_periods INTEGER NOT NULL DEFAULT 0,
        throttled_usec INTEGER NOT NULL DEFAULT 0,
        scheduled_usec INTEGER NOT NULL DEFAULT 0,
        wait_usec INTEGER NOT NULL DEFAULT 0,
        context_switches INTEGER NOT NULL DEFAULT 0,
        earlier_usec INTEGER NOT NULL DEFAULT 0,
        rss_peak_bytes INTEGER NOT NULL DEFAULT 0,
        sent_bytes INTEGER NOT NULL DEFAULT 0,
        received_bytes INTEGER NOT NULL DEFAULT 0,
        stdout_bytes INTEGER NOT NULL DEFAULT 0,
        stderr_bytes INTEGER NOT NULL DEFAULT 0,
        rich_bytes INTEGER NOT NULL DEFAULT 0,
        missing INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX usage_sandboxes_of_owner ON usage_sandboxes (owner, sandbox_id);

-- Labels that it had at its end. Those of one that lives are in sandbox_labels.
CREATE TABLE usage_labels (
        sandbox_id TEXT NOT NULL REFERENCES usage_sandboxes ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (sandbox_id, name)
) STRICT, WITHOUT ROWID;

-- One row: what may be deleted.
CREATE TABLE usage_retention (
        usage_retention_id INTEGER PRIMARY KEY CHECK (usage_retention_id = 1),
        deleted_id INTEGER NOT NULL -- rows up to this one are gone
) STRICT;

INSERT INTO usage_retention VALUES (1, 0);

CREATE TRIGGER usage_record_stays BEFORE UPDATE ON usage_records BEGIN
        SELECT RAISE(ABORT, 'the ledger is only added to');
END;

CREATE TRIGGER usage_record_is_kept BEFORE DELETE ON usage_records
WHEN OLD.record_id > (SELECT deleted_id FROM usage_retention) BEGIN
        SELECT RAISE(ABORT, 'the ledger is only added to');
END;

CREATE TRIGGER usage_record_goes AFTER DELETE ON usage_records BEGIN
        DELETE FROM usage_sandboxes WHERE sandbox_id = OLD.sandbox_id AND end_time_usec > 0
                AND NOT EXISTS (SELECT 1 FROM usage_records WHERE sandbox_id = OLD.sandbox_id)
                AND NOT EXISTS (SELECT 1 FROM sandboxes WHERE sandbox_id = OLD.sandbox_id);
END;

CREATE TRIGGER usage_account_goes AFTER DELETE ON sandboxes BEGIN
        DELETE FROM usage_sandboxes WHERE sandbox_id = OLD.sandbox_id
                AND NOT EXISTS (SELECT 1 FROM usage_records WHERE sandbox_id = OLD.sandbox_id);
END;
