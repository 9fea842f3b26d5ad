-- Mark each merged reservation as settled by the company. The cost stays on the other call. If the
-- reservation were marked as withdrawn instead, it would have no price, and the previous version
-- would charge it a second time.
ALTER TABLE call_terms DROP COLUMN fail_open_key;
DROP INDEX calls_adopted, calls_unpaired, calls_merged_into;
ALTER TABLE calls DROP CONSTRAINT calls_merged, DROP CONSTRAINT calls_settled_by_check,
    DROP CONSTRAINT calls_end_cause_check;
UPDATE calls SET settled_by = 'api' WHERE settled_by = 'merged';
UPDATE calls SET end_cause = 'operator' WHERE end_cause = 'foreign_number';
ALTER TABLE calls
    DROP COLUMN origin, DROP COLUMN pairing_token, DROP COLUMN merged_into,
    ADD CONSTRAINT calls_settled_by_check CHECK (settled_by IN
        ('report', 'look', 'api', 'operator', 'expiry', 'withdrawn', 'refused')),
    ADD CONSTRAINT calls_end_cause_check CHECK (end_cause IN
        ('insufficient_funds', 'frozen_wallet', 'subscription_inactive', 'operator', 'settled',
         'credit_gone', 'wallet_frozen'));
