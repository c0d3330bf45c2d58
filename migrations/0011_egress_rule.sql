-- The rule that denied it, in words: the policy that had it may be gone by the time that it is read.

ALTER TABLE egress_events ADD COLUMN rule TEXT NOT NULL DEFAULT '';
