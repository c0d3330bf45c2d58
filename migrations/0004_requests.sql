-- What came of requests that carried a request_id: a retry is answered from here instead of being
-- run again. Each row is committed with what its request made.

CREATE TABLE requests (
        owner TEXT NOT NULL CHECK (owner <> ''),
        method TEXT NOT NULL CHECK (method <> ''),
        request_id TEXT NOT NULL CHECK (request_id <> ''),
        number INTEGER NOT NULL, -- counts the requests of an owner, to find the oldest
        request_sha256 BLOB NOT NULL CHECK (length(request_sha256) = 32), -- of the other fields
        object_id TEXT NOT NULL, -- the sandbox, context or execution that the answer is about
        created INTEGER NOT NULL CHECK (created IN (0, 1)),
        create_time_usec INTEGER NOT NULL CHECK (create_time_usec > 0),
        PRIMARY KEY (owner, method, request_id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX requests_of_owner ON requests (owner, number);
CREATE INDEX requests_by_time ON requests (create_time_usec);
