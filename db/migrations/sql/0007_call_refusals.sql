-- Stores refused calls with their reason. Each cause of an end gets the code that the same fact has
-- everywhere else.
--
-- The old codes of end_cause stay allowed, so that processes of the previous version can run while
-- this one is rolled out. The rate of a refused call is 0, because no rate was applied to it.

ALTER TABLE calls DROP CONSTRAINT calls_end_cause_check;
UPDATE calls SET end_cause = CASE end_cause WHEN 'credit_gone' THEN 'insufficient_funds'
                                            ELSE 'frozen_wallet' END
WHERE end_cause IN ('credit_gone', 'wallet_frozen');

ALTER TABLE calls
    -- The code of the refusal. It is kept if the call continues although it was refused.
    ADD COLUMN refusal text CHECK (length(refusal) BETWEEN 1 AND 64),
    ADD CONSTRAINT calls_end_cause_check CHECK (end_cause IN
        ('insufficient_funds', 'frozen_wallet', 'subscription_inactive', 'operator', 'settled',
         'credit_gone', 'wallet_frozen')),
    DROP CONSTRAINT calls_status_check,
    ADD CONSTRAINT calls_status_check CHECK (status IN
        ('admitted', 'queued', 'ringing', 'in_progress', 'forwarding', 'ended', 'refused')),
    ADD CONSTRAINT calls_refused CHECK
        (status <> 'refused' OR (refusal IS NOT NULL AND settled_at IS NOT NULL)),
    DROP CONSTRAINT calls_settled_by_check,
    ADD CONSTRAINT calls_settled_by_check CHECK (settled_by IN
        ('report', 'look', 'api', 'operator', 'expiry', 'withdrawn', 'refused')),
    DROP CONSTRAINT calls_micros_per_minute_check,
    ADD CONSTRAINT calls_micros_per_minute_check CHECK
        (micros_per_minute > 0 OR (micros_per_minute = 0 AND status = 'refused'));

-- The newest refusals, which are listed with the live calls.
CREATE INDEX calls_refused_at ON calls (created_at) WHERE status = 'refused';
