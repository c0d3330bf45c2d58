-- What outlives the server's process: what an execution was asked to do, until it has ended, and
-- what it said, for a while after that.

CREATE TABLE execution_requests (
        execution_id TEXT NOT NULL PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
        owner TEXT NOT NULL CHECK (owner <> ''),
        request BLOB NOT NULL -- hotcell.server.v1.KeptRequest
) STRICT;

CREATE TABLE execution_outputs (
        execution_id TEXT NOT NULL PRIMARY KEY REFERENCES executions ON DELETE CASCADE,
        owner TEXT NOT NULL CHECK (owner <> ''),
        end_time_usec INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        output BLOB NOT NULL -- the records of its ring
) STRICT;

CREATE INDEX execution_outputs_by_time ON execution_outputs (end_time_usec, size_bytes);
