-- Calls: one row a call, what it may cost, whose it is, and what happened to it.
--
-- The money stands in the ledger (call_holds, entries); here stands what is known of the call. A
-- call's row is locked after its wallet. calls and call_timeline carry no foreign key to
-- organizations: they are written by every message about a call.

-- What a minute costs, for each organization and route; the longest route that fits is taken.
CREATE TABLE call_rates (
    organization_id   text COLLATE "C" NOT NULL REFERENCES wallets,
    route             text COLLATE "C" NOT NULL
                          CHECK (route ~ '^(default|(inbound|outbound|web)(:\+[0-9]{1,15})?)$'),
    micros_per_minute bigint NOT NULL CHECK (micros_per_minute BETWEEN 1 AND 1000000000000),
    increment_seconds integer NOT NULL CHECK (increment_seconds IN (1, 6, 30, 60)),
    minimum_micros    bigint NOT NULL CHECK (minimum_micros BETWEEN 0 AND 1000000000000),
    set_by            text NOT NULL,
    set_why           text NOT NULL,
    set_at            timestamptz NOT NULL,
    PRIMARY KEY (organization_id, route)
);

-- How an organization's calls are led; one without a row has the house's defaults.
CREATE TABLE call_terms (
    organization_id      text COLLATE "C" PRIMARY KEY REFERENCES wallets,
    step_seconds         integer NOT NULL CHECK (step_seconds BETWEEN 1 AND 3600),
    margin_seconds       integer NOT NULL CHECK (margin_seconds BETWEEN 1 AND 60),
    warn_before_seconds  integer NOT NULL CHECK (warn_before_seconds BETWEEN 0 AND 3600),
    max_duration_seconds integer NOT NULL CHECK (max_duration_seconds BETWEEN 10 AND 43200),
    -- What a call gets when our database does not answer in time: nothing, or so many seconds.
    fail_open            boolean NOT NULL,
    fail_open_seconds    integer NOT NULL CHECK (fail_open_seconds BETWEEN 10 AND 3600),
    fault_policy         text NOT NULL CHECK (fault_policy IN ('waive', 'charge')),
    refusal_text         text NOT NULL CHECK (length(refusal_text) BETWEEN 1 AND 500),
    warning_text         text NOT NULL CHECK (length(warning_text) BETWEEN 1 AND 500),
    ending_text          text NOT NULL CHECK (length(ending_text) BETWEEN 1 AND 500),
    set_by               text NOT NULL,
    set_why              text NOT NULL,
    set_at               timestamptz NOT NULL
);

-- Whose a call is, by the assistant or the phone number it comes through. A number's id and the
-- number itself are doors of their own, since a message may name either.
CREATE TABLE call_doors (
    kind            text NOT NULL CHECK (kind IN ('assistant', 'phone_number', 'campaign')),
    external_id     text COLLATE "C" NOT NULL CHECK (length(external_id) BETWEEN 1 AND 64),
    organization_id text COLLATE "C" NOT NULL REFERENCES wallets,
    -- Who answers calls that come in by this door.
    assistant_id    text COLLATE "C" CHECK (length(assistant_id) BETWEEN 1 AND 64),
    -- Whose subaccount carries the leg at Twilio.
    brand_id        text COLLATE "C" REFERENCES brands,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (kind, external_id)
);
CREATE INDEX ON call_doors (organization_id);

CREATE TABLE calls (
    organization_id    text COLLATE "C" NOT NULL,
    id                 text COLLATE "C" NOT NULL CHECK (length(id) BETWEEN 1 AND 64),
    -- Vapi's id, and the leg at Twilio with the account that carries it.
    provider_call_id   text COLLATE "C" CHECK (length(provider_call_id) BETWEEN 1 AND 64),
    twilio_call_sid    text COLLATE "C" CHECK (twilio_call_sid ~ '^CA[0-9a-f]{32}$'),
    twilio_account_sid text COLLATE "C" CHECK (twilio_account_sid ~ '^AC[0-9a-f]{32}$'),
    direction          text NOT NULL CHECK (direction IN ('inbound', 'outbound', 'web')),
    -- Last digits only.
    our_party          text CHECK (length(our_party) <= 16),
    their_party        text CHECK (length(their_party) <= 16),
    assistant_id       text CHECK (length(assistant_id) <= 64),
    phone_number_id    text CHECK (length(phone_number_id) <= 64),
    appointment_id     text COLLATE "C" CHECK (length(appointment_id) BETWEEN 1 AND 64),
    status             text NOT NULL CHECK (status IN
                           ('admitted', 'queued', 'ringing', 'in_progress', 'forwarding', 'ended')),
    -- Admitted without a hold, since our database did not answer in time.
    fail_open          boolean NOT NULL DEFAULT false,
    -- The rate as it was at the call's start.
    currency           text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    micros_per_minute  bigint NOT NULL CHECK (micros_per_minute > 0),
    increment_seconds  integer NOT NULL CHECK (increment_seconds > 0),
    minimum_micros     bigint NOT NULL CHECK (minimum_micros >= 0),
    -- What the platform was told to stop it at.
    max_duration_seconds integer CHECK (max_duration_seconds BETWEEN 10 AND 43200),
    -- How much of the debt limit this call may use beyond its hold.
    debt_micros        bigint NOT NULL DEFAULT 0 CHECK (debt_micros >= 0),
    -- By our clock: since when it costs, when it has to be looked at next, the last word of its
    -- provider, when it was asked about last.
    metered_from       timestamptz,
    tick_at            timestamptz,
    seen_at            timestamptz,
    asked_at           timestamptz,
    warned_at          timestamptz,
    -- How its ending went: decided, told to the provider, and the provider's word that it is over.
    end_cause          text CHECK (end_cause IN ('credit_gone', 'wallet_frozen',
                                        'subscription_inactive', 'operator', 'settled')),
    end_decided_at     timestamptz,
    end_told_at        timestamptz,
    end_rounds         integer NOT NULL DEFAULT 0,
    ended_seen_at      timestamptz,
    -- The provider's own words.
    started_at         timestamptz,
    ended_at           timestamptz,
    ended_reason       text CHECK (length(ended_reason) <= 200),
    duration_ms        bigint CHECK (duration_ms BETWEEN 0 AND 43260000),
    provider_cost_micros bigint CHECK (provider_cost_micros >= 0),
    oddities           text[] NOT NULL DEFAULT '{}',
    -- What it cost, by whose word, and when that was settled.
    cost_micros        bigint CHECK (cost_micros BETWEEN 0 AND 1000000000000000),
    settled_by         text CHECK (settled_by IN ('report', 'look', 'api', 'operator', 'expiry',
                                                            'withdrawn')),
    settled_at         timestamptz,
    created_at         timestamptz NOT NULL,
    PRIMARY KEY (organization_id, id),
    CONSTRAINT calls_provider_call UNIQUE (provider_call_id),
    CHECK ((settled_at IS NULL) = (settled_by IS NULL)),
    CHECK ((settled_at IS NULL) = (cost_micros IS NULL)),
    CHECK ((end_decided_at IS NULL) = (end_cause IS NULL)),
    CHECK ((status = 'ended') = (ended_seen_at IS NOT NULL)),
    CHECK (tick_at IS NULL OR (status <> 'ended' AND settled_at IS NULL))
);
CREATE INDEX calls_tick_at ON calls (tick_at) WHERE tick_at IS NOT NULL;
CREATE INDEX calls_live ON calls (organization_id) WHERE status <> 'ended' AND settled_at IS NULL;
-- What of a debt limit is promised: also to calls that are over and not charged yet.
CREATE INDEX calls_lent ON calls (organization_id) WHERE settled_at IS NULL AND debt_micros > 0;
CREATE INDEX calls_unsettled ON calls (created_at) WHERE settled_at IS NULL;
CREATE INDEX calls_cost ON calls (organization_id, created_at) INCLUDE (cost_micros, duration_ms);
-- An operator may know no more than the id, or the appointment.
CREATE INDEX calls_id ON calls (id);
CREATE INDEX calls_appointment ON calls (appointment_id, organization_id)
    WHERE appointment_id IS NOT NULL;
CREATE INDEX calls_twilio_call ON calls (twilio_call_sid) WHERE twilio_call_sid IS NOT NULL;

-- What happened to a call, in order; only added to.
CREATE TABLE call_timeline (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    organization_id text COLLATE "C" NOT NULL,
    call_id         text COLLATE "C" NOT NULL,
    at              timestamptz NOT NULL,
    what            text NOT NULL CHECK (length(what) BETWEEN 1 AND 40),
    detail          text NOT NULL DEFAULT '' CHECK (length(detail) <= 500),
    PRIMARY KEY (organization_id, call_id, id)
);

-- Extends many of one wallet's holds in one call and one lock: each as extend_call_credits does,
-- in the order given, and gives each one's outcome.
CREATE FUNCTION extend_call_credits_many(
    p_org text, p_calls text[], p_nths integer[], p_amounts bigint[], p_expires_at timestamptz,
    p_now timestamptz, OUT outcomes text[], OUT answer wallet_outcome
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_one wallet_outcome; v_first bigint;
BEGIN
    outcomes := '{}';
    FOR i IN 1 .. coalesce(cardinality(p_calls), 0) LOOP
        v_one := extend_call_credits(p_org, p_calls[i], p_nths[i], p_amounts[i], p_expires_at,
                                     p_now);
        outcomes := outcomes || v_one.outcome;
        IF v_one.outcome = 'OK' THEN
            -- The figures are those after the last, and of what was available those before the first.
            v_first := coalesce(v_first, v_one.available_before_micros);
            answer := v_one;
            answer.available_before_micros := v_first;
            answer.replayed := false;
        END IF;
    END LOOP;
END
$$;

-- Puts off the end of an open hold, whose call lives on; never nearer. Money is not touched.
CREATE FUNCTION put_off_call_hold(
    p_org text, p_call text, p_expires_at timestamptz, p_now timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF (p_expires_at > p_now AND isfinite(p_expires_at)) IS NOT TRUE THEN
        RETURN false;
    END IF;
    UPDATE call_holds SET expires_at = greatest(expires_at, p_expires_at)
    WHERE organization_id = p_org AND call_id = p_call AND status = 'open';
    RETURN FOUND;
END
$$;

REVOKE ALL ON FUNCTION extend_call_credits_many, put_off_call_hold FROM PUBLIC;
GRANT EXECUTE ON FUNCTION extend_call_credits_many, put_off_call_hold TO holdfast_app;
GRANT SELECT ON call_rates, call_terms, call_doors, calls, call_timeline
    TO holdfast_app, holdfast_readonly;
GRANT INSERT, UPDATE ON call_rates, call_terms, call_doors, calls TO holdfast_app;
GRANT DELETE ON call_rates, call_doors TO holdfast_app;
GRANT INSERT ON call_timeline TO holdfast_app;
