-- What may leave a sandbox. One without a row here has the default policy: nothing may.

ALTER TABLE sandboxes ADD COLUMN egress_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE sandbox_events ADD COLUMN egress_version INTEGER NOT NULL DEFAULT 1;

CREATE TABLE sandbox_egress (
        sandbox_id TEXT NOT NULL PRIMARY KEY REFERENCES sandboxes ON DELETE CASCADE,
        owner TEXT NOT NULL CHECK (owner <> ''),
        version INTEGER NOT NULL, -- that of the row in sandboxes
        default_action INTEGER NOT NULL,
        allows INTEGER NOT NULL CHECK (allows IN (0, 1)), -- anything at all
        policy_sha256 BLOB NOT NULL CHECK (length(policy_sha256) = 32),
        n_rules INTEGER NOT NULL,
        rules BLOB -- a text for each, ended by NUL; NULL once the sandbox has ended
) STRICT;
