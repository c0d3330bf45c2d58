-- A database of schema version 1, as `sqlite3 hotcell.db .dump` shows it, and its two header fields.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
INSERT INTO sandboxes VALUES('sbx-old1','uid:1000','work',2,'python','sha256-0123',1700000000000001,1700003600000001,0,0,0,'',268435456,1000,64,134217728,1024,60000000,67108864,0,0,0,0,0,-2,'0f0e0d0c-0b0a-4908-8706-050403020100',0);
INSERT INTO sandboxes VALUES('sbx-old2','key-old',NULL,4,'python','sha256-0123',1700000000000002,0,0,1700000100000000,7,'Its time to live was over.',268435456,1000,64,134217728,1024,60000000,67108864,5,6,7,8,9,0,'',1);
CREATE TABLE sandbox_labels (
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        owner TEXT NOT NULL CHECK (owner <> ''),
        PRIMARY KEY (sandbox_id, name)
) STRICT, WITHOUT ROWID;
INSERT INTO sandbox_labels VALUES('sbx-old1','team','blue','uid:1000');
CREATE TABLE sandbox_environment (
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        position INTEGER NOT NULL,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        owner TEXT NOT NULL CHECK (owner <> ''),
        PRIMARY KEY (sandbox_id, position)
) STRICT, WITHOUT ROWID;
INSERT INTO sandbox_environment VALUES('sbx-old1',0,'TOKEN','secret','uid:1000');
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
INSERT INTO contexts VALUES('ctx-old1','sbx-old1','uid:1000','python','/home/user',1,3,1700000000000003,0);
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
INSERT INTO executions VALUES('exe-old1','sbx-old1','ctx-old1','uid:1000',3,3,1700000000000004,1700000000000005,1700000000000006,60000000,67108864,2,1,0,0,0,0,'The program raised NameError.',11,12,13,14,15,16,17,18);
INSERT INTO executions VALUES('exe-old2','sbx-old1','ctx-old1','uid:1000',2,3,1700000000000007,1700000000000008,0,60000000,67108864,0,0,0,0,0,0,'',0,0,0,0,0,0,0,0);
CREATE TABLE api_keys (
        key_id TEXT NOT NULL PRIMARY KEY CHECK (key_id <> ''),
        name TEXT NOT NULL CHECK (name <> ''),
        secret_sha256 BLOB NOT NULL CHECK (length(secret_sha256) = 32),
        create_time_usec INTEGER NOT NULL CHECK (create_time_usec > 0),
        revoke_time_usec INTEGER NOT NULL
) STRICT;
INSERT INTO api_keys VALUES('key-old','ci',X'000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',1700000000000000,0);
CREATE TABLE probe (
        probe_id INTEGER PRIMARY KEY CHECK (probe_id = 1),
        probe_time_usec INTEGER NOT NULL
) STRICT;
INSERT INTO probe VALUES(1,0);
CREATE UNIQUE INDEX sandboxes_living_name ON sandboxes (owner, name)
        WHERE name IS NOT NULL AND state <> 4;
CREATE INDEX sandboxes_living_of_owner ON sandboxes (owner, create_time_usec, sandbox_id)
        WHERE state <> 4;
CREATE INDEX sandboxes_of_owner ON sandboxes (owner, create_time_usec, sandbox_id);
CREATE INDEX sandboxes_by_time ON sandboxes (create_time_usec, sandbox_id);
CREATE INDEX sandboxes_living ON sandboxes (create_time_usec, sandbox_id) WHERE state <> 4;
CREATE INDEX sandboxes_ended ON sandboxes (end_time_usec) WHERE state = 4;
CREATE INDEX contexts_of_sandbox ON contexts (sandbox_id);
CREATE INDEX contexts_deleted ON contexts (delete_time_usec) WHERE delete_time_usec > 0;
CREATE INDEX executions_by_time ON executions (create_time_usec, execution_id);
CREATE INDEX executions_of_owner ON executions (owner, create_time_usec, execution_id);
CREATE INDEX executions_of_sandbox ON executions (sandbox_id, create_time_usec, execution_id);
CREATE INDEX executions_of_context ON executions (context_id, create_time_usec, execution_id);
CREATE INDEX executions_living ON executions (create_time_usec, execution_id) WHERE state <> 3;
CREATE INDEX executions_ended ON executions (end_time_usec) WHERE state = 3;
CREATE UNIQUE INDEX api_keys_secret ON api_keys (secret_sha256);
CREATE UNIQUE INDEX api_keys_good_name ON api_keys (name) WHERE revoke_time_usec = 0;
COMMIT;
PRAGMA application_id = 1751344492;
PRAGMA user_version = 1;
