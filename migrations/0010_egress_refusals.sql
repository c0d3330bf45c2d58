-- What the egress wall refused in a sandbox, as it was known last.

ALTER TABLE sandboxes ADD COLUMN egress_counted INTEGER NOT NULL DEFAULT 0 CHECK (egress_counted IN (0, 1));
ALTER TABLE sandboxes ADD COLUMN egress_logged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN egress_dropped INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandbox_events ADD COLUMN egress_counted INTEGER NOT NULL DEFAULT 0 CHECK (egress_counted IN (0, 1));
ALTER TABLE sandbox_events ADD COLUMN egress_logged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandbox_events ADD COLUMN egress_dropped INTEGER NOT NULL DEFAULT 0;
