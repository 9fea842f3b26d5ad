-- Many debits in one call and one commit, of one wallet or of many. A part of the ledger.
--
-- Each row is decided as wallet_debit would decide it, a wallet's rows in the order received, and
-- keeps its own answer, key and entry: a refused one takes no other with it. Wallets are locked in
-- the order of their ids, in every process the same; replays are looked for in a statement of
-- their own, after the lock. Answers are arrays in the order of the request.
--
-- p_now NULL takes the database's clock. Where a debit takes the last of what was available, the
-- organization's check of posture is staged with it, under one of p_job_ids (one for each
-- organization named, at least); with p_job_ids NULL the caller stages it, in this transaction.
--
-- Raises where the arrays are not of one length or a counter-account is missing. The bytes hashed
-- are ledger_hash's (docs/ledger.md), put together here without a call for each entry. Two
-- settings keep the plans: one for all sizes, since planning anew costs as much as ten debits, and
-- with index scans only, since it may be made while the tables are small and outlives that.
CREATE FUNCTION wallet_debit_many(
    p_orgs text[], p_keys text[], p_amounts bigint[], p_currencies text[], p_counters text[],
    p_now timestamptz, p_job_ids text[],
    OUT outcomes text[], OUT replayed boolean[], OUT entry_nos bigint[], OUT balances bigint[],
    OUT helds bigint[], OUT oweds bigint[], OUT befores bigint[], OUT job_ids text[]
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_count integer := cardinality(p_orgs);
    v_now timestamptz := coalesce(p_now, clock_timestamp());
    -- An empty note and the instant end every entry's bytes; its kind and direction are 'debit'.
    v_instant text := (extract(epoch FROM v_now) * 1000000)::bigint::text;
    v_tail bytea := int4send(0) || int4send(length(v_instant)) || convert_to(v_instant, 'UTF8');
    v_debit bytea := int4send(5) || 'debit'::bytea || int4send(5) || 'debit'::bytea;
    v_repeats boolean; v_previous bytea[]; v_hashes bytea[]; v_crossed text[] := '{}';
    -- Every wallet asked for, in the order of their ids; and the one in hand, as it becomes.
    v_wallets wallets[]; v_next integer := 1; v_org text; w wallets; v_org_bytes bytea;
    v_owed_bytes bytea;
    r record; i integer; v_first integer; v_outcome text;
BEGIN
    IF (cardinality(p_keys) = v_count AND cardinality(p_amounts) = v_count
        AND cardinality(p_currencies) = v_count AND cardinality(p_counters) = v_count
        AND array_position(p_counters, NULL) IS NULL) IS NOT TRUE THEN
        RAISE EXCEPTION 'debits: arrays of one length, each with its counter-account'
            USING ERRCODE = 'null_value_not_allowed';
    END IF;
    outcomes := array_fill(NULL::text, ARRAY[v_count]);
    replayed := array_fill(false, ARRAY[v_count]);
    entry_nos := array_fill(NULL::bigint, ARRAY[v_count]);
    balances := entry_nos; helds := entry_nos; oweds := entry_nos; befores := entry_nos;
    v_previous := array_fill(NULL::bytea, ARRAY[v_count]);
    v_hashes := v_previous;
    v_repeats := EXISTS (SELECT FROM unnest(p_orgs, p_keys) AS g(org, key)
                         GROUP BY g.org, g.key HAVING count(*) > 1);
    SELECT array_agg(l.one) INTO v_wallets FROM (
        SELECT t AS one FROM wallets AS t WHERE organization_id = ANY (p_orgs)
        ORDER BY organization_id FOR NO KEY UPDATE) AS l;

    FOR r IN
        SELECT g.n, g.org, g.key, g.amount, g.currency,
            o.entry_no AS known_entry_no, o.balance_micros AS known_balance,
            o.held_micros AS known_held, o.owed_micros AS known_owed,
            o.operation = 'debit' AND o.kind = 'debit' AND o.amount_micros = g.amount
                AND o.currency IS NOT DISTINCT FROM g.currency AS known_same,
            EXISTS (SELECT FROM wallet_freezes f
                    WHERE f.organization_id = g.org AND f.lifted_at IS NULL
                      AND (f.override_until IS NULL OR f.override_until <= v_now)) AS frozen,
            v_debit || int4send(length(g.amount::text)) || convert_to(g.amount::text, 'UTF8')
                AS amount_bytes,
            int4send(octet_length(convert_to(g.counter, 'UTF8'))) || convert_to(g.counter, 'UTF8')
                || int4send(octet_length(convert_to(g.key, 'UTF8'))) || convert_to(g.key, 'UTF8')
                || v_tail AS key_bytes
        FROM unnest(p_orgs, p_keys, p_amounts, p_currencies, p_counters) WITH ORDINALITY
            AS g(org, key, amount, currency, counter, n)
        LEFT JOIN LATERAL (
            SELECT * FROM wallet_operations WHERE organization_id = g.org AND key = g.key LIMIT 1
        ) AS o ON true
        ORDER BY g.org COLLATE "C", g.n
    LOOP
        i := r.n;
        IF r.org IS DISTINCT FROM v_org THEN
            v_org := r.org;
            w := NULL;
            IF (v_wallets[v_next]).organization_id = v_org THEN
                w := v_wallets[v_next];
                v_next := v_next + 1;
                v_org_bytes := int4send(octet_length(convert_to(v_org, 'UTF8')))
                    || convert_to(v_org, 'UTF8');
                v_owed_bytes := int4send(length(w.owed_micros::text))
                    || convert_to(w.owed_micros::text, 'UTF8');
            END IF;
        END IF;
        v_first := NULL;
        IF v_repeats THEN
            -- Taken by an earlier row of this call, if it was: the second answers as the first.
            SELECT g.n INTO v_first
            FROM unnest(p_orgs, p_keys, v_hashes) WITH ORDINALITY AS g(org, key, hash, n)
            WHERE g.org = r.org AND g.key = r.key AND g.hash IS NOT NULL;
        END IF;
        v_outcome := 'OK';
        IF (r.amount BETWEEN 1 AND 1000000000000000) IS NOT TRUE THEN
            v_outcome := 'INVALID_AMOUNT';
        ELSIF (length(r.key) BETWEEN 1 AND 200) IS NOT TRUE THEN
            v_outcome := 'INVALID_KEY';
        ELSIF r.key LIKE 'call:%' THEN
            v_outcome := 'RESERVED_KEY';
        ELSIF w.organization_id IS NULL THEN
            v_outcome := 'WALLET_NOT_FOUND';
        ELSIF r.known_entry_no IS NOT NULL THEN
            IF NOT r.known_same THEN
                v_outcome := 'IDEMPOTENCY_CONFLICT';
            ELSE
                replayed[i] := true;
                entry_nos[i] := r.known_entry_no;
                balances[i] := r.known_balance;
                helds[i] := r.known_held;
                oweds[i] := r.known_owed;
                befores[i] := r.known_balance - r.known_held;
            END IF;
        ELSIF v_first IS NOT NULL THEN
            IF r.amount <> p_amounts[v_first] OR r.currency IS DISTINCT FROM w.currency THEN
                v_outcome := 'IDEMPOTENCY_CONFLICT';
            ELSE
                replayed[i] := true;
                entry_nos[i] := entry_nos[v_first];
                balances[i] := balances[v_first];
                helds[i] := helds[v_first];
                oweds[i] := oweds[v_first];
                befores[i] := balances[v_first] - helds[v_first];
            END IF;
        ELSIF r.currency IS DISTINCT FROM w.currency THEN
            v_outcome := 'CURRENCY_MISMATCH';
        ELSIF r.frozen THEN
            v_outcome := 'FROZEN_WALLET';
        ELSIF w.balance_micros - w.held_micros < r.amount THEN
            v_outcome := 'INSUFFICIENT_FUNDS';
        ELSE
            befores[i] := w.balance_micros - w.held_micros;
            w.balance_micros := w.balance_micros - r.amount;
            w.entry_no := w.entry_no + 1;
            v_previous[i] := w.head_hash;
            w.head_hash := sha256(w.head_hash || v_org_bytes
                || int4send(length(w.entry_no::text)) || convert_to(w.entry_no::text, 'UTF8')
                || r.amount_bytes
                || int4send(length(w.balance_micros::text))
                || convert_to(w.balance_micros::text, 'UTF8')
                || v_owed_bytes || r.key_bytes);
            v_hashes[i] := w.head_hash;
            entry_nos[i] := w.entry_no;
            balances[i] := w.balance_micros;
            helds[i] := w.held_micros;
            oweds[i] := w.owed_micros;
            IF w.balance_micros = w.held_micros THEN
                v_crossed := v_crossed || v_org;
            END IF;
        END IF;
        outcomes[i] := v_outcome;
    END LOOP;

    INSERT INTO wallet_entries (organization_id, entry_no, kind, direction, amount_micros,
        balance_before_micros, balance_after_micros, owed_after_micros, counter_account,
        operation_key, note, created_at, previous_hash, hash)
    SELECT e.org, e.entry_no, 'debit', 'debit', e.amount, e.balance + e.amount, e.balance, e.owed,
        e.counter, e.key, '', v_now, e.previous, e.hash
    FROM unnest(p_orgs, entry_nos, p_amounts, balances, oweds, p_counters, p_keys, v_previous,
                v_hashes) AS e(org, entry_no, amount, balance, owed, counter, key, previous, hash)
    WHERE e.hash IS NOT NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO wallet_operations
    SELECT e.org, e.key, 'debit', 'debit', e.amount, e.currency, e.entry_no, e.balance, e.held,
        e.owed, v_now
    FROM unnest(p_orgs, p_keys, p_amounts, p_currencies, entry_nos, balances, helds, oweds,
                v_hashes) AS e(org, key, amount, currency, entry_no, balance, held, owed, hash)
    WHERE e.hash IS NOT NULL;
    -- Each wallet becomes its newest entry. One by one: joined with them, a plan made while there
    -- were few wallets reads all of them, for as long as the connection lives.
    FOR r IN SELECT DISTINCT ON (g.org) g.* FROM unnest(p_orgs, entry_nos, balances, v_hashes)
                 AS g(org, entry_no, balance, hash)
             WHERE g.hash IS NOT NULL ORDER BY g.org, g.entry_no DESC LOOP
        UPDATE wallets SET balance_micros = r.balance, entry_no = r.entry_no, head_hash = r.hash,
            updated_at = v_now
        WHERE organization_id = r.org;
    END LOOP;
    IF p_job_ids IS NOT NULL AND v_crossed <> '{}' THEN
        job_ids := p_job_ids[1:cardinality(v_crossed)];
        INSERT INTO jobs (id, name, kwargs, organization_id, queue, correlation_id, ring_at)
        SELECT c.job_id, 'enforce_organization', jsonb_build_object('organization_id', c.org),
            c.org, 'safety', 'cor_' || substr(c.job_id, 5),
            clock_timestamp() + interval '2 seconds'
        FROM unnest(v_crossed, job_ids) AS c(org, job_id);
    END IF;
END
$$;
REVOKE ALL ON FUNCTION wallet_debit_many FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wallet_debit_many TO holdfast_app;
