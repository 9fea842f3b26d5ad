-- Payments: what a provider says of one payment, its refunds and its disputes, and what of it is the
-- wallet's. A part of the ledger.
--
-- Each row keeps the newest word of the provider about one thing: the later by the provider's own
-- time, and of one instant the more final. What should have moved is computed from all rows of the
-- payment together, and the ledger moves the difference to what has moved. So neither order nor
-- repetition matters, and an older word changes nothing.
--
-- Locks: the payment, then the wallet; rows of its refunds and disputes change under both.

CREATE TABLE payment_refunds (
    provider        text NOT NULL,
    external_id     text COLLATE "C" NOT NULL CHECK (length(external_id) BETWEEN 1 AND 64),
    kind            text NOT NULL,
    payment_id      text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL REFERENCES wallets,
    amount_micros   bigint NOT NULL CHECK (amount_micros BETWEEN 0 AND 1000000000000000),
    -- What had been given back of the payment in all when this refund was stated, where that is told.
    total_micros    bigint CHECK (total_micros BETWEEN 0 AND 1000000000000000),
    -- A pending refund counts: the money has left, and comes back if it fails.
    state           text NOT NULL CHECK (state IN ('pending', 'completed', 'failed')),
    made_at         timestamptz,
    stated_at       timestamptz,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    PRIMARY KEY (provider, external_id),
    FOREIGN KEY (provider, kind, payment_id) REFERENCES payment_references
);
CREATE INDEX ON payment_refunds (provider, kind, payment_id);
CREATE INDEX ON payment_refunds (organization_id);

CREATE TABLE payment_disputes (
    provider        text NOT NULL,
    external_id     text COLLATE "C" NOT NULL CHECK (length(external_id) BETWEEN 1 AND 64),
    kind            text NOT NULL,
    payment_id      text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C" NOT NULL REFERENCES wallets,
    -- What is disputed while it is open, what was lost once it is lost.
    disputed_micros bigint NOT NULL CHECK (disputed_micros BETWEEN 0 AND 1000000000000000),
    -- Reported is an event's word: it freezes, and moves nothing.
    state           text NOT NULL CHECK (state IN ('reported', 'open', 'won', 'lost')),
    opened_at       timestamptz,
    stated_at       timestamptz,
    -- Since when it is in this state, by our own clock.
    changed_at      timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    -- Whose payments an event named: each is frozen while the dispute is only reported.
    named           text[] COLLATE "C" NOT NULL DEFAULT '{}',
    PRIMARY KEY (provider, external_id),
    CHECK (state <> 'reported' OR disputed_micros = 0),
    FOREIGN KEY (provider, kind, payment_id) REFERENCES payment_references
);
CREATE INDEX ON payment_disputes (provider, kind, payment_id);
CREATE INDEX ON payment_disputes (organization_id);

CREATE TRIGGER payment_references_kept BEFORE DELETE OR TRUNCATE ON payment_references
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER payment_refunds_kept BEFORE DELETE OR TRUNCATE ON payment_refunds
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER payment_disputes_kept BEFORE DELETE OR TRUNCATE ON payment_disputes
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- What of a payment is not the wallet's, never more than was captured.
--
-- Refunded is the sum of its refunds, or a cumulative figure where one is larger, which tells of a
-- refund not heard of yet; less what has failed since that figure was stated.
--
-- Open and lost disputes come on top, but for what was given back since they opened: that is how a
-- provider reports a lost one, or a seller ends one, and it is taken once. Refunds since the
-- latest dispute are since every earlier one too, so that the latest takes its share first.
CREATE FUNCTION payment_taken(p_provider text, p_kind text, p_external_id text) RETURNS bigint
LANGUAGE plpgsql STABLE SET search_path = public, pg_temp AS $$
DECLARE
    r payment_references; d record;
    v_listed numeric; v_refunded numeric; v_since numeric;
    v_disputed numeric := 0; v_same numeric := 0;
BEGIN
    SELECT * INTO STRICT r FROM payment_references
        WHERE provider = p_provider AND kind = p_kind AND external_id = p_external_id;
    SELECT coalesce(sum(amount_micros), 0) INTO v_listed FROM payment_refunds
        WHERE provider = p_provider AND kind = p_kind AND payment_id = p_external_id
          AND state <> 'failed';
    SELECT greatest(v_listed, max(told.figure - (
               SELECT coalesce(sum(f.amount_micros), 0) FROM payment_refunds f
               WHERE f.provider = p_provider AND f.kind = p_kind AND f.payment_id = p_external_id
                 AND f.state = 'failed'
                 AND coalesce(f.stated_at, '-infinity') >= coalesce(told.at, '-infinity'))))
        INTO v_refunded
        FROM (SELECT r.refunded_micros, r.stated_at
              UNION ALL SELECT total_micros, stated_at FROM payment_refunds
              WHERE provider = p_provider AND kind = p_kind AND payment_id = p_external_id
                AND state <> 'failed' AND total_micros IS NOT NULL) told (figure, at);
    -- Providers write some instants to the second only.
    FOR d IN SELECT disputed_micros, date_trunc('second', coalesce(opened_at, '-infinity')) AS since
             FROM payment_disputes
             WHERE provider = p_provider AND kind = p_kind AND payment_id = p_external_id
               AND state IN ('open', 'lost')
             ORDER BY since DESC LOOP
        v_disputed := v_disputed + d.disputed_micros;
        SELECT v_refunded - v_listed + coalesce(sum(amount_micros), 0) INTO v_since
            FROM payment_refunds
            WHERE provider = p_provider AND kind = p_kind AND payment_id = p_external_id
              AND state <> 'failed' AND coalesce(made_at, 'infinity') >= d.since;
        v_same := v_same + least(d.disputed_micros, v_since - v_same);
    END LOOP;
    RETURN least(r.captured_micros, v_refunded + v_disputed - v_same)::bigint;
END
$$;

-- Locks the payment, which gets its row here, and its wallet. Gives a refusal, or an outcome of NULL.
CREATE FUNCTION payment_begin(
    p_org text, p_provider text, p_kind text, p_external_id text, p_currency text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_currency text; v_org text;
BEGIN
    -- Read without the lock, which comes after the payment's: a wallet's currency never changes.
    SELECT currency INTO v_currency FROM wallets WHERE organization_id = p_org;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    ELSIF v_currency IS DISTINCT FROM p_currency THEN
        RETURN wallet_refusal('CURRENCY_MISMATCH');
    END IF;
    INSERT INTO payment_references (provider, kind, external_id, organization_id, created_at,
                                    updated_at)
    VALUES (p_provider, p_kind, p_external_id, p_org, p_now, p_now) ON CONFLICT DO NOTHING;
    SELECT organization_id INTO STRICT v_org FROM payment_references
        WHERE provider = p_provider AND kind = p_kind AND external_id = p_external_id
        FOR NO KEY UPDATE;
    PERFORM FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF v_org <> p_org THEN
        RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
    END IF;
    RETURN NULL;
END
$$;

-- Moves the difference between what should have moved and what has. p_taking and p_giving are the
-- kinds of the entry. Raises HF001 where the wallet has no room, which undoes the caller's rows.
CREATE FUNCTION payment_move(
    p_provider text, p_kind text, p_external_id text, p_taking text, p_giving text,
    p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; r payment_references; v_target bigint; v_delta bigint; v_before bigint; v_key text;
BEGIN
    SELECT * INTO STRICT r FROM payment_references
        WHERE provider = p_provider AND kind = p_kind AND external_id = p_external_id;
    SELECT * INTO STRICT w FROM wallets WHERE organization_id = r.organization_id;
    v_target := r.captured_micros - payment_taken(p_provider, p_kind, p_external_id);
    v_delta := v_target - r.moved_micros;
    v_before := w.balance_micros - w.held_micros;
    IF v_delta = 0 THEN
        RETURN ROW('OK', true, w.entry_no, w.balance_micros, w.held_micros, w.owed_micros,
                   v_before)::wallet_outcome;
    ELSIF v_delta > 0 AND ledger_has_no_room(w, v_delta) THEN
        RAISE EXCEPTION 'no room for % in the wallet of %', v_delta, r.organization_id
            USING ERRCODE = 'HF001';
    END IF;
    UPDATE payment_references SET moved_micros = v_target, movements = movements + 1
    WHERE provider = p_provider AND kind = p_kind AND external_id = p_external_id;
    v_key := concat_ws(':', 'payment', p_provider, p_kind, p_external_id, r.movements + 1, v_target);
    IF v_delta > 0 THEN
        w := ledger_append(w, p_giving, 'credit', v_delta, w.owed_micros, 'topup_clearing', v_key,
                           '', p_now);
        w := ledger_pay_owed(w, v_key, p_now);
    ELSE
        w := ledger_take_back(w, -v_delta, p_taking, p_provider || ':' || p_external_id, v_key,
                              p_now);
    END IF;
    PERFORM ledger_store(w, p_now);
    IF v_delta > 0 THEN
        PERFORM ledger_rearm(w, p_now);
    END IF;
    RETURN wallet_ok(w, v_before);
END
$$;

-- Takes in what a provider says of the payment itself: p_refunded is its own cumulative figure, 0
-- where it has none. The later word counts; of one instant, and without any, the larger figures.
CREATE FUNCTION settle_payment(
    p_org text, p_provider text, p_kind text, p_external_id text, p_currency text,
    p_captured bigint, p_refunded bigint, p_stated_at timestamptz, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    r payment_references; v_answer wallet_outcome; v_captured bigint;
    v_at timestamptz := coalesce(p_stated_at, '-infinity'); v_known_at timestamptz;
BEGIN
    IF (p_captured BETWEEN 0 AND 1000000000000000
        AND p_refunded BETWEEN 0 AND 1000000000000000) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    END IF;
    v_answer := payment_begin(p_org, p_provider, p_kind, p_external_id, p_currency, p_now);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    SELECT * INTO STRICT r FROM payment_references
        WHERE provider = p_provider AND kind = p_kind AND external_id = p_external_id;
    v_known_at := coalesce(r.stated_at, '-infinity');
    v_captured := r.captured_micros;
    IF v_at > v_known_at THEN
        r.captured_micros := p_captured;
        r.refunded_micros := p_refunded;
        r.stated_at := p_stated_at;
    ELSIF v_at = v_known_at THEN
        r.captured_micros := greatest(r.captured_micros, p_captured);
        r.refunded_micros := greatest(r.refunded_micros, p_refunded);
    END IF;
    UPDATE payment_references SET captured_micros = r.captured_micros,
        refunded_micros = r.refunded_micros, stated_at = r.stated_at, updated_at = p_now
    WHERE provider = p_provider AND kind = p_kind AND external_id = p_external_id;
    RETURN payment_move(p_provider, p_kind, p_external_id, 'refund',
        CASE WHEN r.captured_micros > v_captured THEN 'topup' ELSE 'give_back' END, p_now);
EXCEPTION WHEN SQLSTATE 'HF001' THEN
    RETURN wallet_refusal('INVALID_AMOUNT');
END
$$;

-- Takes in what a provider says of one refund of a payment. A payment not heard of yet gets its row:
-- nothing of it was captured so far, and so nothing is taken.
CREATE FUNCTION settle_refund(
    p_org text, p_provider text, p_kind text, p_payment_id text, p_currency text,
    p_external_id text, p_amount bigint, p_total bigint, p_state text, p_made_at timestamptz,
    p_stated_at timestamptz, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_answer wallet_outcome; v_payment_id text;
    v_order constant text[] := ARRAY['pending', 'completed', 'failed'];
BEGIN
    IF (p_amount BETWEEN 0 AND 1000000000000000
        AND coalesce(p_total, 0) BETWEEN 0 AND 1000000000000000) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    END IF;
    v_answer := payment_begin(p_org, p_provider, p_kind, p_payment_id, p_currency, p_now);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    INSERT INTO payment_refunds AS known VALUES (p_provider, p_external_id, p_kind, p_payment_id,
        p_org, p_amount, p_total, p_state, p_made_at, p_stated_at, p_now, p_now)
    ON CONFLICT (provider, external_id) DO UPDATE SET amount_micros = p_amount,
        total_micros = p_total, state = p_state, made_at = p_made_at, stated_at = p_stated_at,
        updated_at = p_now
    WHERE (known.kind, known.payment_id) = (p_kind, p_payment_id)
      AND (coalesce(p_stated_at, '-infinity'), array_position(v_order, p_state), p_amount,
           coalesce(p_total, 0), coalesce(p_made_at, '-infinity'))
        > (coalesce(known.stated_at, '-infinity'), array_position(v_order, known.state),
           known.amount_micros, coalesce(known.total_micros, 0),
           coalesce(known.made_at, '-infinity'));
    SELECT payment_id INTO STRICT v_payment_id FROM payment_refunds
        WHERE provider = p_provider AND external_id = p_external_id;
    IF v_payment_id <> p_payment_id THEN
        RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
    END IF;
    RETURN payment_move(p_provider, p_kind, p_payment_id, 'refund', 'give_back', p_now);
EXCEPTION WHEN SQLSTATE 'HF001' THEN
    RETURN wallet_refusal('INVALID_AMOUNT');
END
$$;

-- Notes that an event told of a dispute, where a payment that it names is known. Gives whom it
-- concerns: all that events named while it is only reported, and nobody where none is known. What
-- the provider itself has said of it already stands.
CREATE FUNCTION dispute_reported(
    p_provider text, p_kind text, p_payment_ids text[], p_external_id text, p_now timestamptz
) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_named text[];
BEGIN
    INSERT INTO payment_disputes AS known
    SELECT p_provider, p_external_id, p_kind, (array_agg(external_id ORDER BY external_id))[1],
           (array_agg(organization_id ORDER BY external_id))[1], 0, 'reported', NULL, NULL, p_now,
           p_now, array_agg(DISTINCT organization_id)
    FROM payment_references
    WHERE provider = p_provider AND kind = p_kind AND external_id = ANY (p_payment_ids)
    HAVING count(*) > 0
    ON CONFLICT (provider, external_id) DO UPDATE SET named = ARRAY(
        SELECT DISTINCT one FROM unnest(known.named || excluded.named) AS u(one) ORDER BY one)
    WHERE known.state = 'reported' AND NOT known.named @> excluded.named;
    SELECT CASE state WHEN 'reported' THEN named ELSE ARRAY[organization_id] END INTO v_named
        FROM payment_disputes WHERE provider = p_provider AND external_id = p_external_id;
    RETURN coalesce(v_named, '{}');
END
$$;

-- Takes in what a provider says of one dispute of a payment that is known. A dispute may be opened
-- again; the provider's time decides, and of one instant the more final state. What was only
-- reported gives way to any word of the provider, also about another payment.
CREATE FUNCTION settle_dispute(
    p_provider text, p_kind text, p_payment_id text, p_currency text, p_external_id text,
    p_amount bigint, p_state text, p_opened_at timestamptz, p_stated_at timestamptz,
    p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    v_answer wallet_outcome; v_org text; v_payment_id text;
    v_order constant text[] := ARRAY['open', 'won', 'lost'];
BEGIN
    IF (p_amount BETWEEN 0 AND 1000000000000000) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    END IF;
    SELECT organization_id INTO v_org FROM payment_references
        WHERE provider = p_provider AND kind = p_kind AND external_id = p_payment_id;
    IF NOT FOUND THEN
        RETURN wallet_refusal('PAYMENT_NOT_FOUND');
    END IF;
    v_answer := payment_begin(v_org, p_provider, p_kind, p_payment_id, p_currency, p_now);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    END IF;
    INSERT INTO payment_disputes AS known VALUES (p_provider, p_external_id, p_kind, p_payment_id,
        v_org, p_amount, p_state, p_opened_at, p_stated_at, p_now, p_now)
    ON CONFLICT (provider, external_id) DO UPDATE SET kind = p_kind, payment_id = p_payment_id,
        organization_id = v_org, disputed_micros = p_amount, state = p_state,
        opened_at = p_opened_at, stated_at = p_stated_at,
        changed_at = CASE WHEN known.state = p_state THEN known.changed_at ELSE p_now END
    WHERE known.state = 'reported'
       OR ((known.kind, known.payment_id) = (p_kind, p_payment_id)
           AND (coalesce(p_stated_at, '-infinity'), array_position(v_order, p_state), p_amount,
                coalesce(p_opened_at, '-infinity'))
             > (coalesce(known.stated_at, '-infinity'), array_position(v_order, known.state),
                known.disputed_micros, coalesce(known.opened_at, '-infinity')));
    SELECT payment_id INTO STRICT v_payment_id FROM payment_disputes
        WHERE provider = p_provider AND external_id = p_external_id;
    IF v_payment_id <> p_payment_id THEN
        RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
    END IF;
    RETURN payment_move(p_provider, p_kind, p_payment_id, 'dispute', 'give_back', p_now);
EXCEPTION WHEN SQLSTATE 'HF001' THEN
    RETURN wallet_refusal('INVALID_AMOUNT');
END
$$;

GRANT SELECT ON payment_refunds, payment_disputes TO holdfast_app, holdfast_readonly;
REVOKE ALL ON FUNCTION payment_taken, payment_begin, payment_move, settle_payment, settle_refund,
    dispute_reported, settle_dispute FROM PUBLIC;
GRANT EXECUTE ON FUNCTION payment_taken, settle_payment, settle_refund, dispute_reported,
    settle_dispute TO holdfast_app;
