-- What was decided about what sandboxes asked the network for. The numbers of types, protocols and
-- reasons are those of server/store/records.h. An event that is told twice is one row.

CREATE TABLE egress_events (
        egress_event_id INTEGER PRIMARY KEY, -- in the order of their coming
        sandbox_id TEXT NOT NULL REFERENCES sandboxes ON DELETE CASCADE,
        sequence INTEGER NOT NULL CHECK (sequence > 0),
        owner TEXT NOT NULL CHECK (owner <> ''),
        execution_id TEXT CHECK (execution_id <> ''), -- may be of one that is not kept any more
        event_time_usec INTEGER NOT NULL CHECK (event_time_usec > 0),
        type INTEGER NOT NULL CHECK (type BETWEEN 1 AND 3),
        protocol INTEGER NOT NULL,
        address TEXT NOT NULL,
        port INTEGER NOT NULL,
        name TEXT NOT NULL,
        reason INTEGER NOT NULL,
        rule_index INTEGER NOT NULL,
        policy_version INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        command TEXT NOT NULL,
        count INTEGER NOT NULL CHECK (count > 0),
        error_number INTEGER NOT NULL,
        sent_bytes INTEGER NOT NULL,
        received_bytes INTEGER NOT NULL,
        duration_usec INTEGER NOT NULL,
        source INTEGER NOT NULL, -- who decided it; zero: not known
        serial INTEGER NOT NULL, -- counts those of its source, maybe with others
        size_bytes INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX egress_events_of_sandbox ON egress_events (sandbox_id, sequence);
-- Whoever tells again what the BPF programs (source 1) refused does so by another clock. What the
-- others count goes by the clock from one start to the next, and that can be set back.
CREATE UNIQUE INDEX egress_events_of_source ON egress_events (sandbox_id, source, serial,
        iif(source = 1, 0, event_time_usec)) WHERE source > 0;
CREATE INDEX egress_events_of_execution ON egress_events (execution_id, sequence)
        WHERE execution_id IS NOT NULL;
CREATE INDEX egress_events_of_owner ON egress_events (owner, event_time_usec);
CREATE INDEX egress_events_by_time ON egress_events (event_time_usec);

ALTER TABLE owner_totals ADD COLUMN n_egress_events INTEGER NOT NULL DEFAULT 0;
ALTER TABLE owner_totals ADD COLUMN egress_event_bytes INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER egress_event_counts AFTER INSERT ON egress_events BEGIN
        INSERT INTO owner_totals (owner, n_egress_events, egress_event_bytes, deleted_sequence)
                SELECT NEW.owner, 1, NEW.size_bytes, deleted_sequence
                FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_egress_events = n_egress_events + 1,
                        egress_event_bytes = egress_event_bytes + excluded.egress_event_bytes;
END;

CREATE TRIGGER egress_event_goes AFTER DELETE ON egress_events BEGIN
        UPDATE owner_totals SET n_egress_events = n_egress_events - 1,
                egress_event_bytes = egress_event_bytes - OLD.size_bytes WHERE owner = OLD.owner;
END;
