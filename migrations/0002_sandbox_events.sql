-- What happened to sandboxes, for watches that resume: each event with the sandbox as it was then,
-- without its environment. Events are deleted oldest first, so those kept have no gap in sequence.

CREATE TABLE sandbox_events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        event_time_usec INTEGER NOT NULL CHECK (event_time_usec > 0),
        event INTEGER NOT NULL CHECK (event BETWEEN 1 AND 4),
        sandbox_id TEXT NOT NULL,
        owner TEXT NOT NULL CHECK (owner <> ''),
        name TEXT,
        state INTEGER NOT NULL,
        template_name TEXT NOT NULL,
        template_digest TEXT NOT NULL,
        create_time_usec INTEGER NOT NULL,
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
        cgroup_id INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        is_one_shot INTEGER NOT NULL
) STRICT;

CREATE INDEX sandbox_events_of_owner ON sandbox_events (owner, sequence);
CREATE INDEX sandbox_events_of_sandbox ON sandbox_events (sandbox_id, sequence);

CREATE TABLE sandbox_event_labels (
        sequence INTEGER NOT NULL REFERENCES sandbox_events ON DELETE CASCADE,
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        owner TEXT NOT NULL CHECK (owner <> ''),
        PRIMARY KEY (sequence, name)
) STRICT, WITHOUT ROWID;
