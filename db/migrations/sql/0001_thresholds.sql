-- Low-balance thresholds, automatic top-up, and alerts: what watches the ledger and moves no money.
--
-- wallets.notice_below_micros is the highest level that is armed, a threshold's or automatic
-- top-up's. A trigger compares it with what is available after every change of a wallet, so that no
-- way of falling can forget it; where nothing is crossed, that one comparison is all the cost. What
-- is crossed is disarmed, told and staged in the transaction that crossed it, so once, whatever
-- comes at the same time. A second trigger keeps the column equal to the armed rows. The order of
-- locks: organization, wallet, then these rows.

-- What a person has to know, of whatever kind. One of a kind and subject stands at a time.
CREATE TABLE alerts (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL CHECK (length(kind) BETWEEN 1 AND 64),
    -- NULL where it concerns the whole house.
    organization_id text COLLATE "C" REFERENCES organizations,
    -- Which of its kind: a threshold, a payment, a queue.
    subject         text COLLATE "C" NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
    severity        text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    details         jsonb NOT NULL,
    raised_at       timestamptz NOT NULL,
    cleared_at      timestamptz
);
CREATE UNIQUE INDEX alerts_standing ON alerts (kind, organization_id, subject)
    NULLS NOT DISTINCT WHERE cleared_at IS NULL;
CREATE INDEX alerts_organization ON alerts (organization_id, id);

CREATE TABLE wallet_thresholds (
    organization_id  text COLLATE "C" NOT NULL REFERENCES wallets,
    threshold_micros bigint NOT NULL CHECK (threshold_micros BETWEEN 1 AND 1000000000000000),
    -- Disarmed when it is crossed; armed again by a top-up, or by hand.
    armed            boolean NOT NULL DEFAULT true,
    crossed_at       timestamptz,
    set_by           text NOT NULL CHECK (length(set_by) BETWEEN 1 AND 200),
    set_why          text NOT NULL CHECK (length(set_why) BETWEEN 1 AND 500),
    set_at           timestamptz NOT NULL,
    PRIMARY KEY (organization_id, threshold_micros),
    CHECK (armed = (crossed_at IS NULL))
);

-- Automatic top-up as it was agreed with the organization; switched off, never removed, because its
-- count of crossings makes the keys of decisions.
CREATE TABLE top_up_settings (
    organization_id text COLLATE "C" PRIMARY KEY REFERENCES wallets,
    enabled         boolean NOT NULL,
    provider        text NOT NULL CHECK (provider IN ('paypal', 'stripe')),
    -- The provider's own id of what the organization pays with.
    payment_method  text COLLATE "C" NOT NULL CHECK (length(payment_method) BETWEEN 1 AND 200),
    below_micros    bigint NOT NULL CHECK (below_micros BETWEEN 1 AND 1000000000000000),
    amount_micros   bigint NOT NULL CHECK (amount_micros BETWEEN 1 AND 1000000000000000),
    day_cap_micros  bigint NOT NULL CHECK (day_cap_micros BETWEEN 1 AND 1000000000000000),
    day_cap_count   integer NOT NULL CHECK (day_cap_count BETWEEN 1 AND 100),
    armed           boolean NOT NULL DEFAULT true,
    crossed_at      timestamptz,
    crossings       bigint NOT NULL DEFAULT 0
                        CHECK (crossings >= 0 AND crossings < 1000000000000000),
    -- When the job that looks again is due, where one was staged.
    asks_at         timestamptz,
    set_by          text NOT NULL CHECK (length(set_by) BETWEEN 1 AND 200),
    set_why         text NOT NULL CHECK (length(set_why) BETWEEN 1 AND 500),
    set_at          timestamptz NOT NULL,
    CHECK (amount_micros <= day_cap_micros),
    CHECK (armed = (crossed_at IS NULL))
);

-- What was decided, and what became of it. A decision waits to be charged until it expires; one
-- whose charge has begun waits for the provider's word.
CREATE TABLE top_up_decisions (
    id                  text COLLATE "C" PRIMARY KEY,
    organization_id     text COLLATE "C" NOT NULL REFERENCES wallets,
    -- Made of the crossing and the how-manieth decision for it: given to the provider as ours.
    idempotency_key     text COLLATE "C" NOT NULL UNIQUE
                            CHECK (length(idempotency_key) BETWEEN 1 AND 108),
    crossing            bigint NOT NULL,
    provider            text NOT NULL CHECK (provider IN ('paypal', 'stripe')),
    payment_method      text COLLATE "C" NOT NULL,
    amount_micros       bigint NOT NULL CHECK (amount_micros BETWEEN 1 AND 1000000000000000),
    currency            text NOT NULL,
    state               text NOT NULL CHECK (state IN
                            ('decided', 'charged', 'declined', 'expired')),
    decided_at          timestamptz NOT NULL,
    expires_at          timestamptz NOT NULL,
    charging_at         timestamptz,
    ended_at            timestamptz,
    -- The payment that it became, and what was captured, which counts against the cap from then on.
    payment_external_id text COLLATE "C",
    charged_micros      bigint CHECK (charged_micros BETWEEN 1 AND 1000000000000000),
    decline_code        text CHECK (length(decline_code) BETWEEN 1 AND 200),
    UNIQUE (provider, payment_external_id),
    CHECK ((state = 'decided') = (ended_at IS NULL)),
    CHECK ((state = 'charged') = (payment_external_id IS NOT NULL)),
    CHECK ((state = 'charged') = (charged_micros IS NOT NULL)),
    CHECK (state <> 'declined' OR decline_code IS NOT NULL)
);
CREATE UNIQUE INDEX top_up_decisions_pending ON top_up_decisions (organization_id)
    WHERE state = 'decided';
CREATE INDEX top_up_decisions_newest ON top_up_decisions (organization_id, decided_at);

-- An id as the programs make them: 48 bits of milliseconds and 80 of chance, 5 bits a letter.
CREATE FUNCTION ledger_new_id(p_kind text) RETURNS text
LANGUAGE sql VOLATILE SET search_path = public, pg_temp AS $$
    SELECT p_kind || '_' || string_agg(
        substr('0123456789abcdefghjkmnpqrstvwxyz', substring(b.bits FROM i FOR 5)::bit(5)::integer + 1,
               1), '' ORDER BY i)
    FROM (SELECT B'00' || floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint::bit(48)
              || ('x' || substr(gen_random_uuid()::text, 1, 8)
                      || substr(gen_random_uuid()::text, 1, 8)
                      || substr(gen_random_uuid()::text, 1, 4))::bit(80) AS bits) AS b,
        generate_series(1, 126, 5) AS i
$$;

-- Disarms what was crossed, raises its alerts, and stages the decision of automatic top-up, whose
-- bell the relay rings. The instant is the wallet's own, or that at which the level was set.
CREATE FUNCTION wallet_fell() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_available bigint := NEW.balance_micros - NEW.held_micros;
    v_job text;
BEGIN
    WITH crossed AS (
        UPDATE wallet_thresholds
        SET armed = false, crossed_at = greatest(NEW.updated_at, set_at)
        WHERE organization_id = NEW.organization_id AND armed AND threshold_micros > v_available
        RETURNING threshold_micros, crossed_at
    )
    INSERT INTO alerts (kind, organization_id, subject, severity, details, raised_at)
    SELECT 'low_balance', NEW.organization_id, threshold_micros::text, 'warning',
        jsonb_build_object('threshold_micros', threshold_micros, 'available_micros', v_available,
                           'currency', NEW.currency), crossed_at
    FROM crossed ORDER BY threshold_micros DESC
    -- Only one that stands is the same: any other conflict must not swallow it.
    ON CONFLICT (kind, organization_id, subject) WHERE cleared_at IS NULL DO NOTHING;
    UPDATE top_up_settings
    SET armed = false, crossings = crossings + 1, crossed_at = greatest(NEW.updated_at, set_at)
    WHERE organization_id = NEW.organization_id AND enabled AND armed
      AND below_micros > v_available;
    IF FOUND THEN
        v_job := ledger_new_id('job');
        INSERT INTO jobs (id, name, kwargs, organization_id, queue, correlation_id, ring_at)
        VALUES (v_job, 'decide_top_up', jsonb_build_object('organization_id', NEW.organization_id),
                NEW.organization_id, 'billing', 'cor_' || substr(v_job, 5), clock_timestamp());
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER wallets_fell
    AFTER UPDATE OF balance_micros, held_micros, notice_below_micros ON wallets FOR EACH ROW
    WHEN (NEW.balance_micros - NEW.held_micros < NEW.notice_below_micros)
    EXECUTE FUNCTION wallet_fell();

-- Keeps the wallet's column equal to the highest armed level, whoever changed a row. The only way
-- for holdfast_app to change it, which may write the levels and not the wallet.
CREATE FUNCTION wallet_watch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_org text := coalesce(NEW.organization_id, OLD.organization_id);
    v_notice bigint;
BEGIN
    SELECT greatest(
        (SELECT max(threshold_micros) FROM wallet_thresholds
         WHERE organization_id = v_org AND armed),
        (SELECT below_micros FROM top_up_settings
         WHERE organization_id = v_org AND armed AND enabled)) INTO v_notice;
    UPDATE wallets SET notice_below_micros = v_notice
    WHERE organization_id = v_org AND notice_below_micros IS DISTINCT FROM v_notice;
    RETURN NULL;
END
$$;
CREATE TRIGGER wallet_thresholds_watched AFTER INSERT OR UPDATE OR DELETE ON wallet_thresholds
    FOR EACH ROW EXECUTE FUNCTION wallet_watch();
CREATE TRIGGER top_up_settings_watched AFTER INSERT OR UPDATE OR DELETE ON top_up_settings
    FOR EACH ROW EXECUTE FUNCTION wallet_watch();

-- Arms again what a top-up has brought back, and clears its alerts. Only a top-up does: a released
-- hold or a correction that bounces around a threshold would tell it again and again. Called when
-- the wallet is stored, because a level armed above what is available is crossed at once.
CREATE FUNCTION ledger_rearm(w wallets, p_now timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_available bigint := w.balance_micros - w.held_micros;
BEGIN
    WITH rearmed AS (
        UPDATE wallet_thresholds SET armed = true, crossed_at = NULL
        WHERE organization_id = w.organization_id AND NOT armed AND threshold_micros <= v_available
        RETURNING threshold_micros
    )
    UPDATE alerts SET cleared_at = p_now FROM rearmed
    WHERE kind = 'low_balance' AND organization_id = w.organization_id
      AND subject = threshold_micros::text AND cleared_at IS NULL;
    UPDATE top_up_settings SET armed = true, crossed_at = NULL
    WHERE organization_id = w.organization_id AND NOT armed AND below_micros <= v_available;
END
$$;

GRANT SELECT ON alerts, wallet_thresholds, top_up_settings, top_up_decisions
    TO holdfast_app, holdfast_readonly;
-- By column: wallet_fell writes these rows inside debits and refunds, so nobody may choose an
-- alert's number or a count of crossings that would stop them, nor move a row to another wallet.
GRANT INSERT (kind, organization_id, subject, severity, details, raised_at), UPDATE (cleared_at)
    ON alerts TO holdfast_app;
GRANT INSERT, UPDATE (armed, crossed_at, set_by, set_why, set_at)
    ON wallet_thresholds TO holdfast_app;
GRANT INSERT (organization_id, enabled, provider, payment_method, below_micros, amount_micros,
        day_cap_micros, day_cap_count, armed, crossed_at, asks_at, set_by, set_why, set_at),
    UPDATE (enabled, provider, payment_method, below_micros, amount_micros, day_cap_micros,
        day_cap_count, armed, crossed_at, asks_at, set_by, set_why, set_at)
    ON top_up_settings TO holdfast_app;
GRANT INSERT, UPDATE (state, charging_at, ended_at, payment_external_id, charged_micros,
        decline_code)
    ON top_up_decisions TO holdfast_app;
GRANT DELETE ON wallet_thresholds TO holdfast_app;
REVOKE ALL ON FUNCTION ledger_new_id, wallet_fell, wallet_watch, ledger_rearm FROM PUBLIC;
