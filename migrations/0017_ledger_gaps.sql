-- In how many rows of a sandbox something is missing, in the order of enum usage_part (server/store/usage.h); of two parts of which one is a part of
-- the other only the whole is counted.

ALTER TABLE usage_sandboxes ADD COLUMN n_without_memory INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_sandboxes ADD COLUMN n_without_memory_peak INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_sandboxes ADD COLUMN n_without_scheduled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_sandboxes ADD COLUMN n_without_rss_peak INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_sandboxes ADD COLUMN n_without_traffic INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_sandboxes ADD COLUMN n_without_throttled INTEGER NOT NULL DEFAULT 0; -- rows of executions never have it: not counted
ALTER TABLE usage_sandboxes ADD COLUMN n_without_wait INTEGER NOT NULL DEFAULT 0;
ALTER TABLE usage_sandboxes ADD COLUMN n_incomplete INTEGER NOT NULL DEFAULT 0; -- rows whose last meters could not be read

UPDATE usage_sandboxes SET (n_without_memory, n_without_memory_peak, n_without_scheduled, n_without_rss_peak, n_without_traffic, n_without_throttled,
        n_without_wait, n_incomplete) = (
        SELECT coalesce(sum(missing >> 1 & 1), 0), coalesce(sum(missing & 6 = 4), 0), coalesce(sum(missing >> 3 & 1), 0),
                coalesce(sum(missing >> 4 & 1), 0), coalesce(sum(missing >> 5 & 1), 0), coalesce(sum(type <> 1 AND missing >> 6 & 1), 0),
                coalesce(sum(missing & 136 = 128), 0), coalesce(sum(is_incomplete), 0)
        FROM usage_records WHERE usage_records.sandbox_id = usage_sandboxes.sandbox_id);
