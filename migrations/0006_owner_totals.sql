-- How much of what is kept each owner has, so that the one who has most is found without counting.

ALTER TABLE sandbox_events ADD COLUMN size_bytes INTEGER NOT NULL DEFAULT 0;

UPDATE sandbox_events SET size_bytes = 512 + (
        SELECT coalesce(sum(iif(length(CAST(name AS BLOB)) + length(CAST(value AS BLOB)) > 900, 4608,
                length(CAST(name AS BLOB)) + length(CAST(value AS BLOB)) + 64)), 0)
        FROM sandbox_event_labels AS label WHERE label.sequence = sandbox_events.sequence);

-- Events of an owner are deleted oldest first: those up to deleted_sequence are gone, those after
-- it are all there. The row of the owner '' speaks for owners that have none of their own.
CREATE TABLE owner_totals (
        owner TEXT NOT NULL PRIMARY KEY,
        n_events INTEGER NOT NULL DEFAULT 0,
        event_bytes INTEGER NOT NULL DEFAULT 0,
        n_ended_executions INTEGER NOT NULL DEFAULT 0,
        n_ended_sandboxes INTEGER NOT NULL DEFAULT 0,
        n_outputs INTEGER NOT NULL DEFAULT 0, -- of ended executions, that are kept
        output_bytes INTEGER NOT NULL DEFAULT 0,
        deleted_sequence INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

INSERT INTO owner_totals (owner, deleted_sequence) VALUES ('', coalesce(
        (SELECT min(sequence) - 1 FROM sandbox_events),
        (SELECT seq FROM sqlite_sequence WHERE name = 'sandbox_events'), 0));

INSERT INTO owner_totals (owner, n_events, event_bytes, deleted_sequence)
        SELECT owner, count(*), sum(size_bytes),
                (SELECT deleted_sequence FROM owner_totals WHERE owner = '')
        FROM sandbox_events GROUP BY owner;

INSERT INTO owner_totals (owner, n_ended_executions, deleted_sequence)
        SELECT owner, count(*), (SELECT deleted_sequence FROM owner_totals WHERE owner = '')
        FROM executions WHERE state = 3 GROUP BY owner
        ON CONFLICT (owner) DO UPDATE SET n_ended_executions = excluded.n_ended_executions;

INSERT INTO owner_totals (owner, n_ended_sandboxes, deleted_sequence)
        SELECT owner, count(*), (SELECT deleted_sequence FROM owner_totals WHERE owner = '')
        FROM sandboxes WHERE state = 4 GROUP BY owner
        ON CONFLICT (owner) DO UPDATE SET n_ended_sandboxes = excluded.n_ended_sandboxes;

INSERT INTO owner_totals (owner, n_outputs, output_bytes, deleted_sequence)
        SELECT owner, count(*), sum(size_bytes),
                (SELECT deleted_sequence FROM owner_totals WHERE owner = '')
        FROM execution_outputs WHERE true GROUP BY owner
        ON CONFLICT (owner) DO UPDATE SET n_outputs = excluded.n_outputs,
                output_bytes = excluded.output_bytes;

CREATE INDEX execution_outputs_of_owner ON execution_outputs (owner, end_time_usec);

CREATE TRIGGER event_counts AFTER INSERT ON sandbox_events BEGIN
        INSERT INTO owner_totals (owner, n_events, event_bytes, deleted_sequence)
                SELECT NEW.owner, 1, NEW.size_bytes, deleted_sequence
                FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_events = n_events + 1,
                        event_bytes = event_bytes + excluded.event_bytes;
END;

CREATE TRIGGER event_goes AFTER DELETE ON sandbox_events BEGIN
        UPDATE owner_totals SET n_events = n_events - 1, event_bytes = event_bytes - OLD.size_bytes,
                deleted_sequence = max(deleted_sequence, OLD.sequence) WHERE owner = OLD.owner;
END;

CREATE TRIGGER ended_execution_counts AFTER INSERT ON executions WHEN NEW.state = 3 BEGIN
        INSERT INTO owner_totals (owner, n_ended_executions, deleted_sequence)
                SELECT NEW.owner, 1, deleted_sequence FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_ended_executions = n_ended_executions + 1;
END;

CREATE TRIGGER execution_ends AFTER UPDATE OF state ON executions
WHEN OLD.state <> 3 AND NEW.state = 3 BEGIN
        INSERT INTO owner_totals (owner, n_ended_executions, deleted_sequence)
                SELECT NEW.owner, 1, deleted_sequence FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_ended_executions = n_ended_executions + 1;
END;

CREATE TRIGGER ended_execution_goes AFTER DELETE ON executions WHEN OLD.state = 3 BEGIN
        UPDATE owner_totals SET n_ended_executions = n_ended_executions - 1
                WHERE owner = OLD.owner;
END;

CREATE TRIGGER output_counts AFTER INSERT ON execution_outputs BEGIN
        INSERT INTO owner_totals (owner, n_outputs, output_bytes, deleted_sequence)
                SELECT NEW.owner, 1, NEW.size_bytes, deleted_sequence
                FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_outputs = n_outputs + 1,
                        output_bytes = output_bytes + excluded.output_bytes;
END;

CREATE TRIGGER output_goes AFTER DELETE ON execution_outputs BEGIN
        UPDATE owner_totals SET n_outputs = n_outputs - 1,
                output_bytes = output_bytes - OLD.size_bytes WHERE owner = OLD.owner;
END;

CREATE TRIGGER ended_sandbox_counts AFTER INSERT ON sandboxes WHEN NEW.state = 4 BEGIN
        INSERT INTO owner_totals (owner, n_ended_sandboxes, deleted_sequence)
                SELECT NEW.owner, 1, deleted_sequence FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_ended_sandboxes = n_ended_sandboxes + 1;
END;

CREATE TRIGGER sandbox_ends AFTER UPDATE OF state ON sandboxes
WHEN OLD.state <> 4 AND NEW.state = 4 BEGIN
        INSERT INTO owner_totals (owner, n_ended_sandboxes, deleted_sequence)
                SELECT NEW.owner, 1, deleted_sequence FROM owner_totals WHERE owner = ''
                ON CONFLICT (owner) DO UPDATE SET n_ended_sandboxes = n_ended_sandboxes + 1;
END;

CREATE TRIGGER ended_sandbox_goes AFTER DELETE ON sandboxes WHEN OLD.state = 4 BEGIN
        UPDATE owner_totals SET n_ended_sandboxes = n_ended_sandboxes - 1
                WHERE owner = OLD.owner;
END;
