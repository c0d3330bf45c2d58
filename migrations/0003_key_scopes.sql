-- What a key may do, as whom, until when, and when it was used last. Keys that exist keep all
-- that they could do, and stay owners of what they made.

ALTER TABLE api_keys ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE api_keys ADD COLUMN scopes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN expire_time_usec INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN last_used_time_usec INTEGER NOT NULL DEFAULT 0;

UPDATE api_keys SET owner = key_id, scopes = 31;

-- The name of an expired key is free, too, which no index can know: inserting looks at the clock.
DROP INDEX api_keys_good_name;
