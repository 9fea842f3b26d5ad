-- The ledger: wallets, entries, freezes, and what credits, debits and corrects.
--
-- A function locks the wallet in a statement of its own, then looks for a replay, then decides,
-- then writes the entry, then the wallet. (One statement that did all would look for the replay in
-- a snapshot taken before it waited for the lock, and would miss it.)
--
-- Guarded twice. By roles: holdfast_app may select and execute, but not write these tables. By
-- structure: a wallet row must equal its newest entry (a foreign key), entries are numbered without
-- gaps under a primary key, and CHECKs are the floor. All amounts are micros; p_now is business time.

CREATE TABLE wallet_entries (
    organization_id       text COLLATE "C" NOT NULL,
    entry_no              bigint NOT NULL CHECK (entry_no >= 0),
    kind                  text NOT NULL CHECK (kind IN
                              ('opening', 'topup', 'credit', 'debit', 'refund', 'owed_payment',
                               'call', 'asset', 'BALANCE_CORRECTION', 'freeze', 'unfreeze',
                               'override', 'owed', 'debt_limit', 'rebuild', 'dispute',
                               'give_back')),
    -- A note moves no money: it puts a freeze, a debt or a repair into the same numbered chain.
    direction             text NOT NULL CHECK (direction IN ('credit', 'debit', 'note')),
    amount_micros         bigint NOT NULL,
    balance_before_micros bigint NOT NULL,
    balance_after_micros  bigint NOT NULL,
    owed_after_micros     bigint NOT NULL,
    counter_account       text NOT NULL,
    operation_key         text COLLATE "C" NOT NULL CHECK (length(operation_key) BETWEEN 1 AND 200),
    note                  text NOT NULL DEFAULT '' CHECK (length(note) <= 1000),
    created_at            timestamptz NOT NULL,
    previous_hash         bytea NOT NULL,
    hash                  bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (organization_id, entry_no),
    CHECK (CASE direction WHEN 'note' THEN amount_micros >= 0
                          ELSE amount_micros BETWEEN 1 AND 1000000000000000 END),
    CHECK (balance_after_micros = balance_before_micros + CASE direction
               WHEN 'credit' THEN amount_micros WHEN 'debit' THEN -amount_micros ELSE 0 END)
);
CREATE INDEX ON wallet_entries (organization_id, created_at, entry_no);
-- After the index above: of indexes that cost the same, as all do while the table is small, the
-- planner takes the newest, and a connection keeps what it took to check a wallet's newest entry.
-- The other one would have it read all of that wallet's entries at every commit.
ALTER TABLE wallet_entries
    ADD UNIQUE (organization_id, entry_no, balance_after_micros, owed_after_micros);

CREATE TABLE wallets (
    organization_id   text COLLATE "C" PRIMARY KEY REFERENCES organizations,
    currency          text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    balance_micros    bigint NOT NULL CHECK (balance_micros BETWEEN -900000000000000000
                                                                AND 900000000000000000),
    held_micros       bigint NOT NULL DEFAULT 0 CHECK (held_micros >= 0),
    owed_micros       bigint NOT NULL DEFAULT 0 CHECK (owed_micros >= 0),
    debt_limit_micros bigint NOT NULL DEFAULT 0 CHECK (debt_limit_micros >= 0),
    entry_no          bigint NOT NULL,
    head_hash         bytea NOT NULL,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL,
    -- The highest level at which somebody wants to know (0001_thresholds.sql); NULL if there is
    -- none. Not indexed, so that an update of a wallet stays within its page.
    notice_below_micros bigint,
    CHECK (balance_micros - held_micros >= -debt_limit_micros),
    CONSTRAINT wallet_equals_its_newest_entry
        FOREIGN KEY (organization_id, entry_no, balance_micros, owed_micros)
        REFERENCES wallet_entries (organization_id, entry_no, balance_after_micros,
                                   owed_after_micros)
);

CREATE TABLE wallet_operations (
    organization_id text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL CHECK (length(key) BETWEEN 1 AND 200),
    -- What makes a repeat the same request; never text, time or metadata.
    operation       text NOT NULL,
    kind            text NOT NULL,
    amount_micros   bigint NOT NULL,
    currency        text NOT NULL,
    -- What was answered the first time, and is answered again.
    entry_no        bigint NOT NULL,
    balance_micros  bigint NOT NULL,
    held_micros     bigint NOT NULL,
    owed_micros     bigint NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (organization_id, key)
);

CREATE TABLE wallet_freezes (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id text COLLATE "C" NOT NULL REFERENCES wallets,
    reason          text NOT NULL CHECK (reason IN ('subscription_inactive', 'dispute',
                        'refund_shortfall', 'call_shortfall', 'manual')),
    -- Which dispute, which payment; '' where the reason itself says all.
    cause           text NOT NULL DEFAULT '' CHECK (length(cause) <= 200),
    placed_by       text NOT NULL CHECK (length(placed_by) BETWEEN 1 AND 200),
    placed_why      text NOT NULL CHECK (length(placed_why) <= 500),
    placed_at       timestamptz NOT NULL,
    override_until  timestamptz,
    override_by     text,
    override_why    text,
    lifted_by       text,
    lifted_why      text,
    lifted_at       timestamptz,
    CHECK ((lifted_at IS NULL) = (lifted_by IS NULL))
);
CREATE UNIQUE INDEX wallet_freezes_standing ON wallet_freezes (organization_id, reason, cause)
    WHERE lifted_at IS NULL;

-- A payment's own facts; its key is unique over the whole system, so that one payment can never
-- credit two organizations. Its refunds and disputes, and what follows, stand in 0001_payments.sql.
CREATE TABLE payment_references (
    provider        text NOT NULL CHECK (provider IN ('paypal', 'stripe')),
    kind            text NOT NULL CHECK (kind IN ('capture')),
    external_id     text COLLATE "C" NOT NULL CHECK (length(external_id) BETWEEN 1 AND 64),
    organization_id text COLLATE "C" NOT NULL REFERENCES wallets,
    captured_micros bigint NOT NULL DEFAULT 0 CHECK (captured_micros >= 0),
    refunded_micros bigint NOT NULL DEFAULT 0 CHECK (refunded_micros >= 0),
    -- What the ledger has moved for it so far, what it owes included.
    moved_micros    bigint NOT NULL DEFAULT 0,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    -- The provider's time of captured and refunded; NULL where it has none.
    stated_at       timestamptz,
    -- How often the ledger has moved for it: what makes each movement's key its own.
    movements       integer NOT NULL DEFAULT 0 CHECK (movements >= 0),
    PRIMARY KEY (provider, kind, external_id)
);
CREATE INDEX ON payment_references (organization_id);

CREATE FUNCTION ledger_is_append_only() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % of % refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER wallet_entries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON wallet_entries
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER wallet_operations_append_only BEFORE UPDATE OR DELETE OR TRUNCATE
    ON wallet_operations FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
-- Entries and operations have no foreign key to their organization, which would be checked row by
-- row. Their wallet has one, and stays.
CREATE TRIGGER wallets_are_kept BEFORE DELETE OR TRUNCATE ON wallets
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- What every operation answers. available_before_micros lets the caller see a crossing of zero.
CREATE TYPE wallet_outcome AS (
    outcome text, replayed boolean, entry_no bigint, balance_micros bigint, held_micros bigint,
    owed_micros bigint, available_before_micros bigint
);

CREATE FUNCTION wallet_refusal(p_code text) RETURNS wallet_outcome
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT ROW(p_code, false, NULL, NULL, NULL, NULL, NULL)::wallet_outcome
$$;

CREATE FUNCTION wallet_ok(w wallets, p_available_before bigint) RETURNS wallet_outcome
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT ROW('OK', false, w.entry_no, w.balance_micros, w.held_micros, w.owed_micros,
               p_available_before)::wallet_outcome
$$;

-- Each field as its length in four bytes and its UTF-8 text, so that no two lists of fields give
-- the same bytes; the instant as whole microseconds, because its text depends on the time zone.
CREATE FUNCTION ledger_hash(p_previous bytea, VARIADIC p_fields text[]) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT sha256(p_previous || string_agg(
        int4send(octet_length(convert_to(f, 'UTF8'))) || convert_to(f, 'UTF8'), ''::bytea
        ORDER BY n))
    FROM unnest(p_fields) WITH ORDINALITY AS u(f, n)
$$;

-- Writes the next entry and gives the wallet as it must then be; the caller stores it once.
CREATE FUNCTION ledger_append(
    w wallets, p_kind text, p_direction text, p_amount bigint, p_owed_after bigint,
    p_counter text, p_key text, p_note text, p_now timestamptz
) RETURNS wallets
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_before bigint := w.balance_micros;
    v_previous bytea := w.head_hash;
BEGIN
    w.entry_no := w.entry_no + 1;
    w.balance_micros := v_before + CASE p_direction
        WHEN 'credit' THEN p_amount WHEN 'debit' THEN -p_amount ELSE 0 END;
    w.owed_micros := p_owed_after;
    w.head_hash := ledger_hash(
        v_previous, w.organization_id, w.entry_no::text, p_kind, p_direction, p_amount::text,
        w.balance_micros::text, p_owed_after::text, p_counter, p_key, p_note,
        (extract(epoch FROM p_now) * 1000000)::bigint::text);
    INSERT INTO wallet_entries (organization_id, entry_no, kind, direction, amount_micros,
        balance_before_micros, balance_after_micros, owed_after_micros, counter_account,
        operation_key, note, created_at, previous_hash, hash)
    VALUES (w.organization_id, w.entry_no, p_kind, p_direction, p_amount, v_before,
        w.balance_micros, p_owed_after, p_counter, p_key, p_note, p_now, v_previous, w.head_hash);
    RETURN w;
END
$$;

CREATE FUNCTION ledger_store(w wallets, p_now timestamptz) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    UPDATE wallets SET balance_micros = w.balance_micros, held_micros = w.held_micros,
        owed_micros = w.owed_micros, entry_no = w.entry_no, head_hash = w.head_hash,
        updated_at = p_now
    WHERE organization_id = w.organization_id
$$;

-- Whether a credit would pass the bound of a balance, which is refused before the CHECK raises.
CREATE FUNCTION ledger_has_no_room(w wallets, p_amount bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT w.balance_micros > 900000000000000000 - p_amount
$$;

-- Locks the wallet for the rest of the transaction; holdfast_app has no other way to lock it.
CREATE FUNCTION wallet_lock(p_org text) RETURNS wallets
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT * FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE
$$;

CREATE FUNCTION wallet_is_frozen(p_org text, p_now timestamptz) RETURNS boolean
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM wallet_freezes
        WHERE organization_id = p_org AND lifted_at IS NULL
          AND (override_until IS NULL OR override_until <= p_now))
$$;

-- The first answer to this key, if there was one: NULL, a replay or a conflict.
CREATE FUNCTION wallet_replay(
    p_org text, p_key text, p_operation text, p_kind text, p_amount bigint, p_currency text
) RETURNS wallet_outcome
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    o wallet_operations;
BEGIN
    SELECT * INTO o FROM wallet_operations WHERE organization_id = p_org AND key = p_key;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF (o.operation, o.kind, o.amount_micros, o.currency)
          IS DISTINCT FROM (p_operation, p_kind, p_amount, p_currency) THEN
        RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
    END IF;
    RETURN ROW('OK', true, o.entry_no, o.balance_micros, o.held_micros, o.owed_micros,
               o.balance_micros - o.held_micros)::wallet_outcome;
END
$$;

CREATE FUNCTION wallet_remember(
    w wallets, p_key text, p_operation text, p_kind text, p_amount bigint, p_now timestamptz
) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO wallet_operations VALUES (w.organization_id, p_key, p_operation, p_kind, p_amount,
        w.currency, w.entry_no, w.balance_micros, w.held_micros, w.owed_micros, p_now)
$$;

CREATE FUNCTION wallet_open(p_org text, p_currency text, p_now timestamptz) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets;
BEGIN
    -- The organization's row is the lock that two openings of one wallet meet at.
    PERFORM FROM organizations WHERE id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('ORGANIZATION_NOT_FOUND');
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org;
    IF FOUND THEN
        IF w.currency IS DISTINCT FROM p_currency THEN
            RETURN wallet_refusal('CURRENCY_MISMATCH');
        END IF;
        RETURN wallet_ok(w, w.balance_micros - w.held_micros);
    END IF;
    SELECT p_org, p_currency, 0, 0, 0, 0, -1, ''::bytea, p_now, p_now INTO w;
    -- The chain begins with whose wallet it is and in what currency.
    w := ledger_append(w, 'opening', 'note', 0, 0, p_currency, 'opening', '', p_now);
    INSERT INTO wallets SELECT (w).*;
    RETURN wallet_ok(w, 0);
END
$$;

-- What was owed is paid first, out of what is available; a freeze that the debt caused ends with it.
CREATE FUNCTION ledger_pay_owed(w wallets, p_key text, p_now timestamptz) RETURNS wallets
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_pay bigint := least(w.owed_micros, w.balance_micros - w.held_micros);
    f record;
BEGIN
    IF v_pay <= 0 THEN
        RETURN w;
    END IF;
    w := ledger_append(w, 'owed_payment', 'debit', v_pay, w.owed_micros - v_pay, 'owed', p_key, '',
                       p_now);
    IF w.owed_micros = 0 THEN
        FOR f IN UPDATE wallet_freezes SET lifted_by = 'system', lifted_why = 'nothing is owed',
                     lifted_at = p_now
                 WHERE organization_id = w.organization_id AND lifted_at IS NULL
                   AND reason IN ('refund_shortfall', 'call_shortfall')
                 RETURNING reason LOOP
            w := ledger_append(w, 'unfreeze', 'note', 0, 0, f.reason, p_key,
                               'system: nothing is owed', p_now);
        END LOOP;
    END IF;
    RETURN w;
END
$$;

CREATE FUNCTION ledger_place_freeze(
    w wallets, p_reason text, p_cause text, p_by text, p_why text, p_key text, p_now timestamptz
) RETURNS wallets
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO wallet_freezes (organization_id, reason, cause, placed_by, placed_why, placed_at)
    VALUES (w.organization_id, p_reason, p_cause, p_by, p_why, p_now) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN w;
    END IF;
    RETURN ledger_append(w, 'freeze', 'note', 0, w.owed_micros, p_reason, p_key,
                         p_by || ': ' || p_why, p_now);
END
$$;

-- What any movement by key has in common: bounds, the lock, its currency, a replay. Gives the
-- answer where that settles it; else its outcome is NULL and the wallet is locked.
CREATE FUNCTION wallet_begin(
    p_org text, p_key text, p_operation text, p_kind text, p_amount bigint, p_currency text
) RETURNS wallet_outcome
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_currency text; v_answer wallet_outcome;
BEGIN
    IF p_amount IS NULL OR p_amount NOT BETWEEN 1 AND 1000000000000000 THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    ELSIF (length(p_key) BETWEEN 1 AND 200) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_KEY');
    ELSIF p_key LIKE 'call:%' THEN
        -- A call's own keys: whoever took one would make that call impossible to bill.
        RETURN wallet_refusal('RESERVED_KEY');
    END IF;
    SELECT currency INTO v_currency FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    END IF;
    v_answer := wallet_replay(p_org, p_key, p_operation, p_kind, p_amount, p_currency);
    IF v_answer.outcome IS NULL AND v_currency IS DISTINCT FROM p_currency THEN
        RETURN wallet_refusal('CURRENCY_MISMATCH');
    END IF;
    RETURN v_answer;
END
$$;

CREATE FUNCTION wallet_credit(
    p_org text, p_key text, p_amount bigint, p_currency text, p_kind text, p_counter text,
    p_note text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_answer wallet_outcome; v_before bigint;
BEGIN
    -- Any other kind is written by the function whose entry it is, and means more than a credit.
    IF (p_kind IN ('credit', 'topup', 'refund', 'give_back')) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_KIND');
    END IF;
    v_answer := wallet_begin(p_org, p_key, 'credit', p_kind, p_amount, p_currency);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org;
    v_before := w.balance_micros - w.held_micros;
    IF ledger_has_no_room(w, p_amount) THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    END IF;
    w := ledger_append(w, p_kind, 'credit', p_amount, w.owed_micros, p_counter, p_key, p_note, p_now);
    w := ledger_pay_owed(w, p_key, p_now);
    PERFORM ledger_store(w, p_now);
    IF p_kind = 'topup' THEN
        PERFORM ledger_rearm(w, p_now);
    END IF;
    PERFORM wallet_remember(w, p_key, 'credit', p_kind, p_amount, p_now);
    RETURN wallet_ok(w, v_before);
END
$$;

CREATE FUNCTION wallet_debit(
    p_org text, p_key text, p_amount bigint, p_currency text, p_kind text, p_counter text,
    p_note text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_answer wallet_outcome; v_before bigint;
BEGIN
    -- As with credits: what any other kind takes, its own function takes.
    IF (p_kind IN ('debit', 'asset')) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_KIND');
    END IF;
    v_answer := wallet_begin(p_org, p_key, 'debit', p_kind, p_amount, p_currency);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org;
    v_before := w.balance_micros - w.held_micros;
    IF wallet_is_frozen(p_org, p_now) THEN
        RETURN wallet_refusal('FROZEN_WALLET');
    ELSIF v_before < p_amount THEN
        RETURN wallet_refusal('INSUFFICIENT_FUNDS');
    END IF;
    w := ledger_append(w, p_kind, 'debit', p_amount, w.owed_micros, p_counter, p_key, p_note, p_now);
    PERFORM ledger_store(w, p_now);
    PERFORM wallet_remember(w, p_key, 'debit', p_kind, p_amount, p_now);
    RETURN wallet_ok(w, v_before);
END
$$;

-- A correction by an operator: p_direction 'credit' or 'debit'; it never passes the debt limit.
CREATE FUNCTION wallet_correct(
    p_org text, p_key text, p_direction text, p_amount bigint, p_currency text, p_operator text,
    p_why text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_answer wallet_outcome; v_before bigint; v_kind text;
BEGIN
    IF (p_direction IN ('credit', 'debit') AND length(p_operator) BETWEEN 1 AND 200
        AND length(p_why) BETWEEN 1 AND 500) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_CORRECTION');
    END IF;
    v_kind := 'BALANCE_CORRECTION:' || p_direction;
    v_answer := wallet_begin(p_org, p_key, 'correct', v_kind, p_amount, p_currency);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org;
    v_before := w.balance_micros - w.held_micros;
    IF p_direction = 'debit' AND v_before - p_amount < -w.debt_limit_micros THEN
        RETURN wallet_refusal('INSUFFICIENT_FUNDS');
    ELSIF p_direction = 'credit' AND ledger_has_no_room(w, p_amount) THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    END IF;
    w := ledger_append(w, 'BALANCE_CORRECTION', p_direction, p_amount, w.owed_micros, 'corrections',
        p_key, p_operator || ': ' || p_why || ' (before ' || w.balance_micros || ')', p_now);
    IF p_direction = 'credit' THEN
        w := ledger_pay_owed(w, p_key, p_now);
    END IF;
    PERFORM ledger_store(w, p_now);
    PERFORM wallet_remember(w, p_key, 'correct', v_kind, p_amount, p_now);
    RETURN wallet_ok(w, v_before);
END
$$;

-- Places a freeze. One that stands already is left as it is, with its override.
CREATE FUNCTION wallet_freeze(
    p_org text, p_reason text, p_cause text, p_by text, p_why text, p_now timestamptz
) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_entry_no bigint;
BEGIN
    SELECT * INTO STRICT w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    v_entry_no := w.entry_no;
    w := ledger_place_freeze(w, p_reason, p_cause, p_by, p_why,
                             'freeze:' || (w.entry_no + 1), p_now);
    IF w.entry_no = v_entry_no THEN
        RETURN false;
    END IF;
    PERFORM ledger_store(w, p_now);
    RETURN true;
END
$$;

-- Lifts the reason's freezes: one cause, or all where p_cause is NULL. Returns how many.
CREATE FUNCTION wallet_unfreeze(
    p_org text, p_reason text, p_cause text, p_by text, p_why text, p_now timestamptz
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_lifted integer := 0; f record;
BEGIN
    SELECT * INTO STRICT w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    FOR f IN UPDATE wallet_freezes SET lifted_by = p_by, lifted_why = p_why, lifted_at = p_now
             WHERE organization_id = p_org AND lifted_at IS NULL AND reason = p_reason
               AND (p_cause IS NULL OR cause = p_cause)
             RETURNING id LOOP
        v_lifted := v_lifted + 1;
        w := ledger_append(w, 'unfreeze', 'note', 0, w.owed_micros, p_reason,
                           'unfreeze:' || (w.entry_no + 1), p_by || ': ' || p_why, p_now);
    END LOOP;
    IF v_lifted > 0 THEN
        PERFORM ledger_store(w, p_now);
    END IF;
    RETURN v_lifted;
END
$$;

-- Lets the wallet spend although the reason stands, until p_until. Returns how many it concerns.
CREATE FUNCTION wallet_override(
    p_org text, p_reason text, p_until timestamptz, p_by text, p_why text, p_now timestamptz
) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_count integer;
BEGIN
    SELECT * INTO STRICT w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    UPDATE wallet_freezes SET override_until = p_until, override_by = p_by, override_why = p_why
    WHERE organization_id = p_org AND lifted_at IS NULL AND reason = p_reason;
    GET DIAGNOSTICS v_count = ROW_COUNT;
    IF v_count > 0 THEN
        w := ledger_append(w, 'override', 'note', 0, w.owed_micros, p_reason,
            'override:' || (w.entry_no + 1),
            p_by || ': ' || p_why || ' (until ' ||
                to_char(p_until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') || ')', p_now);
        PERFORM ledger_store(w, p_now);
    END IF;
    RETURN v_count;
END
$$;

-- Takes p_amount back for a refund or a dispute (p_kind): what is available above zero is debited,
-- the rest is owed and freezes.
CREATE FUNCTION ledger_take_back(w wallets, p_amount bigint, p_kind text, p_cause text, p_key text,
                                 p_now timestamptz) RETURNS wallets
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_take bigint := least(p_amount, greatest(w.balance_micros - w.held_micros, 0));
BEGIN
    IF v_take > 0 THEN
        w := ledger_append(w, p_kind, 'debit', v_take, w.owed_micros, 'topup_clearing', p_key,
                           '', p_now);
    END IF;
    IF v_take < p_amount THEN
        w := ledger_append(w, 'owed', 'note', p_amount - v_take, w.owed_micros + p_amount - v_take,
                           'owed', p_key, '', p_now);
        w := ledger_place_freeze(w, 'refund_shortfall', p_cause, 'system',
                                 'a ' || p_kind || ' came after the money was spent', p_key,
                                 p_now);
    END IF;
    RETURN w;
END
$$;

-- Makes a wallet row again from its entries and its open holds (after damage done around the
-- functions). The owner's alone. It raises where the entries themselves do not add up, or more is held
-- than they leave, because then they need a person.
CREATE FUNCTION wallet_rebuild(p_org text, p_operator text, p_why text, p_now timestamptz)
RETURNS wallet_outcome
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; e wallet_entries; v_sum numeric; v_count bigint; v_found text;
    v_held numeric; v_key text;
BEGIN
    SELECT * INTO STRICT w FROM wallets WHERE organization_id = p_org FOR UPDATE;
    SELECT * INTO STRICT e FROM wallet_entries WHERE organization_id = p_org
        ORDER BY entry_no DESC LIMIT 1;
    SELECT sum(CASE direction WHEN 'credit' THEN amount_micros WHEN 'debit' THEN -amount_micros
               ELSE 0 END), count(*) INTO v_sum, v_count
        FROM wallet_entries WHERE organization_id = p_org;
    IF v_sum <> e.balance_after_micros OR v_count <> e.entry_no + 1 THEN
        RAISE EXCEPTION 'the entries of % do not add up: sum %, newest %, % entries of %',
            p_org, v_sum, e.balance_after_micros, v_count, e.entry_no + 1
            USING ERRCODE = 'data_corrupted';
    END IF;
    SELECT coalesce(sum(reserved_micros), 0) INTO v_held
        FROM call_holds WHERE organization_id = p_org AND status = 'open';
    IF v_held > e.balance_after_micros + w.debt_limit_micros THEN
        RAISE EXCEPTION 'the open holds of % do not fit its entries: held %, balance %',
            p_org, v_held, e.balance_after_micros USING ERRCODE = 'data_corrupted';
    END IF;
    v_found := 'balance ' || w.balance_micros || ', held ' || w.held_micros || ', owed '
               || w.owed_micros || ', entry ' || w.entry_no;
    w.held_micros := v_held;
    w.balance_micros := e.balance_after_micros;
    w.owed_micros := e.owed_after_micros;
    w.entry_no := e.entry_no;
    w.head_hash := e.hash;
    v_key := 'rebuild:' || (w.entry_no + 1);
    w := ledger_append(w, 'rebuild', 'note', 0, w.owed_micros, 'rebuild', v_key,
        p_operator || ': ' || p_why || ' (found ' || v_found || ')', p_now);
    -- Fewer holds than were counted leave more available, and what is owed comes first.
    w := ledger_pay_owed(w, v_key, p_now);
    PERFORM ledger_store(w, p_now);
    RETURN wallet_ok(w, w.balance_micros - w.held_micros);
END
$$;

GRANT SELECT ON wallets, wallet_entries, wallet_operations, wallet_freezes, payment_references
    TO holdfast_app, holdfast_readonly;
-- Ours only: others may have functions in the same schema.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'public'::regnamespace
             AND proowner = 'holdfast_owner'::regrole LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END
$$;
GRANT EXECUTE ON FUNCTION wallet_lock, wallet_is_frozen, wallet_open, wallet_credit, wallet_debit,
    wallet_correct, wallet_freeze, wallet_unfreeze, wallet_override
    TO holdfast_app;
