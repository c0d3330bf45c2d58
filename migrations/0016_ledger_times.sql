-- When a row of the ledger came tells it from every other one, so pages go on after a time: those that share one, or came while the clock was set
-- back, follow each other by a microsecond.

DROP TRIGGER usage_record_stays;

UPDATE usage_records SET record_time_usec = place.time_usec FROM (
        SELECT record_id, number + max(record_time_usec - number) OVER (ORDER BY record_id) AS time_usec
        FROM (SELECT record_id, record_time_usec, row_number() OVER (ORDER BY record_id) AS number FROM usage_records)
) AS place WHERE place.record_id = usage_records.record_id AND place.time_usec > usage_records.record_time_usec;

CREATE TRIGGER usage_record_stays BEFORE UPDATE ON usage_records BEGIN
        SELECT RAISE(ABORT, 'the ledger is only added to');
END;
