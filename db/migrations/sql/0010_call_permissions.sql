-- Stores permissions to dial for the provider's campaigns: the campaign and the contact that a call
-- was permitted for. Each request of a campaign reads the index, which holds open permissions only.
ALTER TABLE calls
    ADD COLUMN campaign_id text COLLATE "C" CHECK (length(campaign_id) BETWEEN 1 AND 64),
    ADD COLUMN contact_id text COLLATE "C" CHECK (length(contact_id) BETWEEN 1 AND 64);
CREATE INDEX calls_campaign ON calls (campaign_id, contact_id)
    WHERE campaign_id IS NOT NULL AND settled_at IS NULL;
