-- Turns a refused call into a withdrawn one, which the previous version knows. Its reason is lost.
DROP INDEX calls_refused_at;
ALTER TABLE calls DROP CONSTRAINT calls_refused, DROP CONSTRAINT calls_end_cause_check;
UPDATE calls SET status = 'ended', ended_seen_at = settled_at, settled_by = 'withdrawn',
    micros_per_minute = 1
WHERE status = 'refused';
UPDATE calls SET end_cause = CASE end_cause WHEN 'insufficient_funds' THEN 'credit_gone'
                                            ELSE 'wallet_frozen' END
WHERE end_cause IN ('insufficient_funds', 'frozen_wallet');
ALTER TABLE calls
    DROP COLUMN refusal,
    ADD CONSTRAINT calls_end_cause_check CHECK (end_cause IN
        ('credit_gone', 'wallet_frozen', 'subscription_inactive', 'operator', 'settled')),
    DROP CONSTRAINT calls_status_check,
    ADD CONSTRAINT calls_status_check CHECK (status IN
        ('admitted', 'queued', 'ringing', 'in_progress', 'forwarding', 'ended')),
    DROP CONSTRAINT calls_settled_by_check,
    ADD CONSTRAINT calls_settled_by_check CHECK (settled_by IN
        ('report', 'look', 'api', 'operator', 'expiry', 'withdrawn')),
    DROP CONSTRAINT calls_micros_per_minute_check,
    ADD CONSTRAINT calls_micros_per_minute_check CHECK (micros_per_minute > 0);
