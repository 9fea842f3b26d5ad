-- The processes that run now. Each writes its own row every two seconds and deletes it when it stops.
-- Rows are small and updated in place (HOT): no column that changes has an index.
CREATE TABLE processes (
    id               text COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    kind             text NOT NULL CHECK (kind IN ('ingress', 'worker', 'relay')),
    -- Host and process id, for people.
    name             text NOT NULL CHECK (length(name) BETWEEN 1 AND 300),
    -- What a worker works on; empty for other kinds.
    queues           text[] NOT NULL DEFAULT '{}',
    started_at       timestamptz NOT NULL,
    seen_at          timestamptz NOT NULL,
    -- Since when Redis has taken no work from this process; NULL while it does.
    redis_away_since timestamptz,
    -- When this process last looked for faults on behalf of all.
    checked_at       timestamptz
) WITH (fillfactor = 50);

GRANT SELECT ON processes TO holdfast_app, holdfast_readonly;
GRANT INSERT, UPDATE, DELETE ON processes TO holdfast_app;
