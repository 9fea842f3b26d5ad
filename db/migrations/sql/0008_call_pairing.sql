-- Pairing a reservation with the provider's call: a token that only the company knows, and one call
-- out of two rows where the provider's report came before the pairing.

ALTER TABLE calls
    -- How the call became known: it asked (admitted), the company's backend reserved for it, or a
    -- report told of it first (adopted). NULL where a version before this one wrote the row.
    ADD COLUMN origin text CHECK (origin IN ('admitted', 'reserved', 'adopted')),
    -- Proves that metadata with our ids was written by the company.
    ADD COLUMN pairing_token text CHECK (length(pairing_token) BETWEEN 20 AND 64),
    -- The call of the same organization that this reservation turned out to be: only that one has a
    -- meter, a hold and a price from then on.
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

-- Only calls that may still be paired: the rest of the table is not rewritten.
UPDATE calls c SET origin = CASE
    WHEN EXISTS (SELECT FROM call_timeline t
                 WHERE (t.organization_id, t.call_id) = (c.organization_id, c.id)
                   AND t.what = 'adopted') THEN 'adopted'
    WHEN c.direction = 'outbound' THEN 'reserved'
    ELSE 'admitted' END
WHERE c.settled_at IS NULL OR c.created_at > now() - interval '2 days';

-- Which adopted calls may be the one that a reservation was made for.
CREATE INDEX calls_adopted ON calls (organization_id, created_at) WHERE origin = 'adopted';
-- Which reservations may be for an adopted call.
CREATE INDEX calls_unpaired ON calls (organization_id, created_at)
    WHERE origin = 'reserved' AND provider_call_id IS NULL;
-- Which reservations a call has been merged with.
CREATE INDEX calls_merged_into ON calls (organization_id, merged_into)
    WHERE merged_into IS NOT NULL;

-- Signs the ids of calls that are let in while the database does not answer.
ALTER TABLE call_terms ADD COLUMN fail_open_key text NOT NULL
    DEFAULT replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
