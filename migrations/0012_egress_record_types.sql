-- Types of DNS records that may be asked for, besides A and AAAA: bit N stands for number N of
-- hotcell.v1.EgressRecordType.

ALTER TABLE sandbox_egress ADD COLUMN record_types INTEGER NOT NULL DEFAULT 0;
