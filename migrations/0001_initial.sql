-- Sandboxes, what runs in them, and API keys.
--
-- Times are microseconds since the epoch and 0 means "not yet" or "never"; durations are
-- microseconds. The numbers of states, causes and outcomes are those of server/store/records.h.
-- Every row has an owner; a key is itself one.

PRAGMA application_id = 1751344492; -- "hcel"

CREATE TABLE sandboxes (
        sandbox_id TEXT NOT NULL PRIMARY KEY,
        owner TEXT NOT NULL CHECK (owner <> ''),
        name TEXT CHECK (name <> ''),
        state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
        template_name TEXT NOT NULL,
        template_digest TEXT NOT NULL,
        create_time_usec INTEGER NOT NULL CHECK (create_time_usec > 0),
        expire_time_usec INTEGER NOT NULL,
        idle_timeout_usec INTEGER NOT NULL,
        end_time_usec INTEGER NOT NULL,
        end_cause INTEGER NOT NULL,
        end_message TEXT NOT NULL,
        limit_memory_bytes INTEGER NOT NULL,
        limit_cpu_millis INTEGER NOT NULL,
        limit_processes INTEGER NOT NULL,
        limit_disk_bytes INTEGER NOT NULL,
        limit_open_files INTEGER NOT NULL,
        limit_timeout_usec INTEGER NOT NULL,
        limit_output_bytes INTEGER NOT NULL,
        used_cpu_usec INTEGER NOT NULL,
        used_memory_bytes INTEGER NOT NULL,
        used_memory_peak_bytes INTEGER NOT NULL,
        used_disk_bytes INTEGER NOT NULL,
        used_processes INTEGER NOT NULL,
        cgroup_id INTEGER NOT NULL, -- the 64 bits of an unsigned number
        boot_id TEXT NOT NULL,
        is_one_shot INTEGER NOT NULL CHECK (is_one_shot IN (0, 1))
) STRICT;

-- A name is free again when its sandbox has ended (state 4).
CREATE UNIQUE INDEX sandboxes_living_name ON sandboxes (owner, name)
        WHERE name IS NOT NULL AND state <> 4;

-- For lists, newest first: most ask for living sandboxes among many ended ones.
CREATE INDEX sandboxes_living_of_owner ON sandboxes (owner, create_time_usec, sandbox_id)
        WHERE state <> 4;
CREATE INDEX sandboxes_of_owner ON sandboxes (owner, create_time_usec, sandbox_id);
CREATE INDEX sandboxes_by_time ON sandboxes (create_time_usec, sandbox_id);
CREATE INDEX sandboxes_living ON sandboxes (create_time_usec, sandbox_id) WHERE state <> 4;
CREATE INDEX sandboxes_ended ON sandboxes (end_time_usec) WHERE state = 4;

CREATE TABLE sandbox_labels (
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        owner TEXT NOT NULL CHECK (owner <> ''),
        PRIMARY KEY (sandbox_id, name)
) STRICT, WITHOUT ROWID;

-- Deleted when the sandbox ends: values may be secrets.
CREATE TABLE sandbox_environment (
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        owner TEXT NOT NULL CHECK (owner <> ''),
        PRIMARY KEY (sandbox_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE contexts (
        context_id TEXT NOT NULL PRIMARY KEY,
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        owner TEXT NOT NULL CHECK (owner <> ''),
        language TEXT NOT NULL,
        working_directory TEXT NOT NULL,
        is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
        generation INTEGER NOT NULL,
        create_time_usec INTEGER NOT NULL CHECK (create_time_usec > 0),
        delete_time_usec INTEGER NOT NULL
) STRICT;

CREATE INDEX contexts_of_sandbox ON contexts (sandbox_id);
CREATE INDEX contexts_deleted ON contexts (delete_time_usec) WHERE delete_time_usec > 0;

CREATE TABLE executions (
        execution_id TEXT NOT NULL PRIMARY KEY,
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        context_id TEXT REFERENCES contexts ON DELETE CASCADE,
        owner TEXT NOT NULL CHECK (owner <> ''),
        state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),
        context_generation INTEGER NOT NULL,
        create_time_usec INTEGER NOT NULL CHECK (create_time_usec > 0),
        start_time_usec INTEGER NOT NULL,
        end_time_usec INTEGER NOT NULL,
        limit_timeout_usec INTEGER NOT NULL,
        limit_output_bytes INTEGER NOT NULL,
        outcome INTEGER NOT NULL,
        cause INTEGER NOT NULL,
        has_exit_code INTEGER NOT NULL CHECK (has_exit_code IN (0, 1)),
        exit_code INTEGER NOT NULL,
        signal INTEGER NOT NULL,
        state_lost INTEGER NOT NULL CHECK (state_lost IN (0, 1)),
        message TEXT NOT NULL,
        used_cpu_usec INTEGER NOT NULL,
        used_wall_usec INTEGER NOT NULL,
        used_memory_peak_bytes INTEGER NOT NULL,
        stdout_bytes INTEGER NOT NULL,
        stderr_bytes INTEGER NOT NULL,
        rich_bytes INTEGER NOT NULL,
        truncated_bytes INTEGER NOT NULL,
        last_sequence INTEGER NOT NULL
) STRICT;

CREATE INDEX executions_by_time ON executions (create_time_usec, execution_id);
CREATE INDEX executions_of_owner ON executions (owner, create_time_usec, execution_id);
CREATE INDEX executions_of_sandbox ON executions (sandbox_id, create_time_usec, execution_id);
CREATE INDEX executions_of_context ON executions (context_id, create_time_usec, execution_id);
CREATE INDEX executions_living ON executions (create_time_usec, execution_id) WHERE state <> 3;
CREATE INDEX executions_ended ON executions (end_time_usec) WHERE state = 3;

CREATE TABLE api_keys (
        key_id TEXT NOT NULL PRIMARY KEY CHECK (key_id <> ''),
        name TEXT NOT NULL CHECK (name <> ''),
        secret_sha256 BLOB NOT NULL CHECK (length(secret_sha256) = 32),
        create_time_usec INTEGER NOT NULL CHECK (create_time_usec > 0),
        revoke_time_usec INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX api_keys_secret ON api_keys (secret_sha256);
-- The name of a revoked key is free again.
CREATE UNIQUE INDEX api_keys_good_name ON api_keys (name) WHERE revoke_time_usec = 0;

-- One row, written to find out whether the disk takes writes again.
CREATE TABLE probe (
        probe_id INTEGER PRIMARY KEY CHECK (probe_id = 1),
        probe_time_usec INTEGER NOT NULL
) STRICT;

INSERT INTO probe VALUES (1, 0);
