-- Tables. Ids and keys compare as bytes (COLLATE "C"); every text has a bound; every instant is
-- timestamptz. jobs, job_attempts and inbox are hot and carry no foreign key to organizations.

CREATE TABLE organizations (
    id         text COLLATE "C" PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    created_at timestamptz NOT NULL
);

CREATE TABLE subscriptions (
    id                  text COLLATE "C" PRIMARY KEY,
    organization_id     text COLLATE "C" NOT NULL REFERENCES organizations,
    provider            text NOT NULL CHECK (provider IN ('paypal', 'stripe')),
    external_id         text COLLATE "C" NOT NULL CHECK (length(external_id) BETWEEN 1 AND 64),
    plan_external_id    text,
    -- The provider's own word, as read back; never an event's.
    status              text NOT NULL CHECK (status IN
                            ('pending', 'active', 'past_due', 'suspended', 'cancelled', 'expired')),
    status_changed_at   timestamptz,
    looked_at           timestamptz,
    past_due_since      timestamptz,
    grace_seconds       integer NOT NULL DEFAULT 0 CHECK (grace_seconds BETWEEN 0 AND 7776000),
    -- Events since: how many, the newest one's time and claim, and whether a closing one stands.
    reports             integer NOT NULL DEFAULT 0,
    reported_at         timestamptz,
    reported_claim      text CHECK (reported_claim IN ('closing', 'opening')),
    closing_reported_at timestamptz,
    -- Since when the provider's answer has contradicted the newest event.
    contradicted_at     timestamptz,
    -- One holder at a time looks at the provider; the token fences one that lost its lease.
    look_token          text,
    look_lease_until    timestamptz,
    created_at          timestamptz NOT NULL,
    UNIQUE (provider, external_id)
);
CREATE INDEX ON subscriptions (organization_id);

CREATE TABLE brands (
    id                    text COLLATE "C" PRIMARY KEY,
    organization_id       text COLLATE "C" NOT NULL REFERENCES organizations,
    name                  text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    twilio_subaccount_sid text COLLATE "C" UNIQUE
                              CHECK (twilio_subaccount_sid ~ '^AC[0-9a-f]{32}$'),
    -- What should be, and how often that changed.
    twilio_desired        text NOT NULL DEFAULT 'active'
                              CHECK (twilio_desired IN ('active', 'suspended')),
    twilio_generation     integer NOT NULL DEFAULT 0,
    -- What Twilio said, when, and which generation it was last brought in line with.
    twilio_actual         text CHECK (twilio_actual IN
                              ('active', 'suspended', 'closed', 'absent')),
    twilio_actual_at      timestamptz,
    twilio_converged      integer,
    -- What a person has to look at: it is not retried for ever.
    twilio_problem        text,
    -- One hand at a time; until unsure_until a lost request may still land at Twilio.
    twilio_lease_token    text,
    twilio_lease_until    timestamptz,
    twilio_unsure_until   timestamptz,
    created_at            timestamptz NOT NULL
);
CREATE INDEX ON brands (organization_id);

CREATE TABLE campaigns (
    id              text COLLATE "C" PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL REFERENCES organizations,
    brand_id        text COLLATE "C" NOT NULL REFERENCES brands,
    name            text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    status          text NOT NULL CHECK (status IN
                        ('draft', 'running', 'paused', 'completed', 'cancelled')),
    -- A pause by hand is a flag of its own, which the system never clears.
    manually_paused boolean NOT NULL DEFAULT false,
    pause_reason    text CHECK (pause_reason IN
                        ('manual_pause', 'subscription_inactive', 'wallet_frozen',
                         'wallet_depleted')),
    paused_at       timestamptz,
    created_at      timestamptz NOT NULL,
    CHECK ((status = 'paused') = (pause_reason IS NOT NULL)),
    CHECK (NOT manually_paused OR status <> 'running')
);
CREATE INDEX ON campaigns (organization_id, status);

CREATE TABLE inbox (
    id              text COLLATE "C" PRIMARY KEY,
    source          text NOT NULL CHECK (source IN ('paypal', 'stripe', 'vapi', 'twilio')),
    external_id     text COLLATE "C" NOT NULL CHECK (length(external_id) BETWEEN 1 AND 200),
    -- PayPal's signature covers a transmission id, and of the body only its CRC32: the same
    -- transmission with another body is a forgery.
    transmission_id text COLLATE "C" CHECK (length(transmission_id) BETWEEN 1 AND 100),
    event_type      text NOT NULL CHECK (length(event_type) BETWEEN 1 AND 100),
    -- NULL once it was handled long ago; the hash stays, and tells a repeat from a forgery.
    body            bytea,
    body_sha256     bytea NOT NULL CHECK (length(body_sha256) = 32),
    correlation_id  text COLLATE "C" NOT NULL,
    received_at     timestamptz NOT NULL,
    handled_at      timestamptz,
    outcome         text CHECK (outcome IN ('handled', 'ignored', 'malformed')),
    UNIQUE (source, external_id),
    UNIQUE (source, transmission_id),
    CHECK (body IS NOT NULL OR handled_at IS NOT NULL)
);
-- What pruning has to look at. Its predicate names no column that handling an event changes, so
-- that this stays an update within the page (HOT).
CREATE INDEX inbox_with_body ON inbox (id) WHERE body IS NOT NULL;

CREATE TABLE refused_deliveries (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source      text NOT NULL,
    status      smallint NOT NULL,
    reason      text NOT NULL CHECK (length(reason) <= 200),
    refused_at  timestamptz NOT NULL
);

CREATE TABLE refusal_counts (
    source text NOT NULL,
    status smallint NOT NULL,
    count  bigint NOT NULL,
    PRIMARY KEY (source, status)
);

CREATE TABLE jobs (
    id              text COLLATE "C" PRIMARY KEY,
    name            text COLLATE "C" NOT NULL CHECK (length(name) <= 64),
    kwargs          jsonb NOT NULL,
    organization_id text COLLATE "C",
    queue           text COLLATE "C" NOT NULL CHECK (queue IN
                        ('safety', 'billing', 'maintenance', 'callbacks', 'messaging')),
    cause           text COLLATE "C",
    correlation_id  text COLLATE "C" NOT NULL,
    staged_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- Not before this: a stray second bell must not cut a wait short.
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- The one instant at which the bell must ring if nothing happened before.
    ring_at         timestamptz,
    rings           smallint NOT NULL DEFAULT 0,
    -- Rises at every claim and never falls: it fences a worker that was taken for dead.
    attempt         integer NOT NULL DEFAULT 0,
    failures        integer NOT NULL DEFAULT 0,
    postponements   integer NOT NULL DEFAULT 0,
    lease_until     timestamptz,
    worker          text,
    done_at         timestamptz,
    outcome         text CHECK (outcome IN ('done', 'refused', 'discarded')),
    dead_at         timestamptz,
    last_error      text,
    CHECK ((done_at IS NULL) = (outcome IS NULL)),
    CHECK (done_at IS NULL OR dead_at IS NULL),
    CHECK ((ring_at IS NULL) = (done_at IS NOT NULL OR dead_at IS NOT NULL))
);
CREATE INDEX jobs_ring_at ON jobs (ring_at) WHERE ring_at IS NOT NULL;
CREATE INDEX jobs_ring_at_urgent ON jobs (ring_at) WHERE ring_at IS NOT NULL AND queue = 'safety';
CREATE INDEX jobs_dead ON jobs (id) WHERE dead_at IS NOT NULL;
CREATE INDEX jobs_refused ON jobs (id) WHERE outcome = 'refused';
CREATE INDEX jobs_organization ON jobs (organization_id, id);
-- What came of one webhook. No index for arguments and errors: each of a job's three writes would
-- pay for it (measured on a busy machine: some 14% more for this one, 22% for the arguments').
CREATE INDEX jobs_correlation ON jobs (correlation_id);

CREATE TABLE job_attempts (
    job_id     text COLLATE "C" NOT NULL,
    attempt    integer NOT NULL,
    worker     text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at   timestamptz,
    outcome    text CHECK (outcome IN ('done', 'refused', 'postponed', 'failed')),
    error      text,
    traceback  text,
    PRIMARY KEY (job_id, attempt)
);

GRANT SELECT ON organizations, subscriptions, brands, campaigns, inbox, refused_deliveries,
    refusal_counts, jobs, job_attempts TO holdfast_app, holdfast_readonly;
GRANT INSERT, UPDATE ON organizations, subscriptions, brands, campaigns, inbox, jobs, job_attempts,
    refusal_counts TO holdfast_app;
GRANT INSERT, DELETE ON refused_deliveries TO holdfast_app;
GRANT DELETE ON inbox, jobs, job_attempts TO holdfast_app;
