-- Permissions for campaigns at the provider to dial: the campaign and the contact that a call was
-- permitted for. The index holds the open ones alone; each request of a campaign looks there.
ALTER TABLE calls
    ADD COLUMN campaign_id text COLLATE "C" CHECK (length(campaign_id) BETWEEN 1 AND 64),
    ADD COLUMN contact_id text COLLATE "C" CHECK (length(contact_id) BETWEEN 1 AND 64);
CREATE INDEX calls_campaign ON calls (campaign_id, contact_id)
    WHERE campaign_id IS NOT NULL AND settled_at IS NULL;
