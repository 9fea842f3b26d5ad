-- Replaces the causes that the previous version does not know with 'operator'. A call without a
-- rate gets the lowest rate, and an operator settles it.
ALTER TABLE calls DROP CONSTRAINT calls_micros_per_minute_check,
    DROP CONSTRAINT calls_end_cause_check;
UPDATE calls SET end_cause = 'operator' WHERE end_cause IN ('max_duration', 'no_rate');
UPDATE calls SET micros_per_minute = 1 WHERE micros_per_minute = 0 AND status <> 'refused';
ALTER TABLE calls
    DROP COLUMN rate_route,
    DROP COLUMN number_seen,
    ADD CONSTRAINT calls_micros_per_minute_check CHECK
        (micros_per_minute > 0 OR (micros_per_minute = 0 AND status = 'refused')),
    ADD CONSTRAINT calls_end_cause_check CHECK (end_cause IN
        ('insufficient_funds', 'frozen_wallet', 'subscription_inactive', 'operator', 'settled',
         'foreign_number', 'credit_gone', 'wallet_frozen'));
