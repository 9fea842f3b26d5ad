-- Pairs a reservation with the provider's call, by a token that only the company knows. If the
-- provider's report arrived before the pairing, two rows are merged into one call.

ALTER TABLE calls
    -- How the call became known: its provider asked for admission (admitted), the company's backend
    -- reserved it (reserved), or a report named it first (adopted). NULL if an earlier version
    -- wrote the row.
    ADD COLUMN origin text CHECK (origin IN ('admitted', 'reserved', 'adopted')),
    -- Proves that the company wrote the metadata that contains our ids.
    ADD COLUMN pairing_token text CHECK (length(pairing_token) BETWEEN 20 AND 64),
    -- The call of the same organization that this reservation turned out to be. From then on, only
    -- that call has a meter, a hold and a price.
    ADD COLUMN merged_into text COLLATE "C" CHECK (length(merged_into) BETWEEN 1 AND 64),
    ADD CONSTRAINT calls_merged CHECK
        (merged_into IS NULL OR (settled_at IS NOT NULL AND provider_call_id IS NULL)),
    DROP CONSTRAINT calls_settled_by_check,
    ADD CONSTRAINT calls_settled_by_check CHECK (settled_by IN
        ('report', 'look', 'api', 'operator', 'expiry', 'withdrawn', 'refused', 'merged')),
    DROP CONSTRAINT calls_end_cause_check,
    ADD CONSTRAINT calls_end_cause_check CHECK (end_cause IN
        ('insufficient_funds', 'frozen_wallet', 'subscription_inactive', 'operator', 'settled',
         'foreign_number', 'credit_gone', 'wallet_frozen'));

-- Updates only calls that may still be paired, so that the rest of the table is not rewritten.
UPDATE calls c SET origin = CASE
    WHEN EXISTS (SELECT FROM call_timeline t
                 WHERE (t.organization_id, t.call_id) = (c.organization_id, c.id)
                   AND t.what = 'adopted') THEN 'adopted'
    WHEN c.direction = 'outbound' THEN 'reserved'
    ELSE 'admitted' END
WHERE c.settled_at IS NULL OR c.created_at > now() - interval '2 days';

-- Finds the adopted calls that may belong to a reservation.
CREATE INDEX calls_adopted ON calls (organization_id, created_at) WHERE origin = 'adopted';
-- Finds the reservations that may belong to an adopted call.
CREATE INDEX calls_unpaired ON calls (organization_id, created_at)
    WHERE origin = 'reserved' AND provider_call_id IS NULL;
-- Finds the reservations that were merged into a call.
CREATE INDEX calls_merged_into ON calls (organization_id, merged_into)
    WHERE merged_into IS NOT NULL;

-- Signs the ids of calls that are admitted while the database does not answer.
ALTER TABLE call_terms ADD COLUMN fail_open_key text NOT NULL
    DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
