-- Limits of sandboxes that earlier ones had without being asked, and what the owner of a key may have; zero: no quota.

ALTER TABLE sandboxes ADD COLUMN limit_cpu_weight INTEGER NOT NULL DEFAULT 100;
ALTER TABLE sandboxes ADD COLUMN limit_disk_inodes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN limit_io_bytes_per_second INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandbox_events ADD COLUMN limit_cpu_weight INTEGER NOT NULL DEFAULT 100;
ALTER TABLE sandbox_events ADD COLUMN limit_disk_inodes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandbox_events ADD COLUMN limit_io_bytes_per_second INTEGER NOT NULL DEFAULT 0;

UPDATE sandboxes SET limit_disk_inodes = max(limit_disk_bytes / 4096, 1024);
UPDATE sandbox_events SET limit_disk_inodes = max(limit_disk_bytes / 4096, 1024);

ALTER TABLE api_keys ADD COLUMN quota_sandboxes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_memory_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_cpu_millis INTEGER NOT NULL DEFAULT 0;
ALTER TABLE api_keys ADD COLUMN quota_executions INTEGER NOT NULL DEFAULT 0;
