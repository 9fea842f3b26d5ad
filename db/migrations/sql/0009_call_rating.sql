-- Stores the route that a call is priced by, and whether its provider has named the number of that
-- route. The number itself is not stored.
--
-- A call that no route fits is stored too, so that it can be ended. It has no route, and its rate
-- of 0 means that its price is not known.
ALTER TABLE calls
    ADD COLUMN rate_route text,
    ADD COLUMN number_seen boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT calls_micros_per_minute_check,
    ADD CONSTRAINT calls_micros_per_minute_check CHECK
        (micros_per_minute > 0
            OR (micros_per_minute = 0 AND (status = 'refused' OR rate_route IS NULL))),
    DROP CONSTRAINT calls_end_cause_check,
    ADD CONSTRAINT calls_end_cause_check CHECK (end_cause IN
        ('insufficient_funds', 'frozen_wallet', 'subscription_inactive', 'operator', 'settled',
         'foreign_number', 'max_duration', 'no_rate', 'credit_gone', 'wallet_frozen'));
