-- Holds: money set aside for a call while it lives, and what became of it. A part of the ledger.
--
-- reserve and extend take from what is available and are refused while frozen; commit charges what
-- the call really cost, first from the hold, then from what is available, then within the debt
-- limit, and owes the rest; release and expire give back. A hold leaves 'open' exactly once, and a
-- call is billed once. Holds change only under their wallet's lock, so that a wallet's held_micros is
-- always the sum of its open holds; a hold itself moves no money and so writes no entry.

CREATE TABLE call_holds (
    organization_id  text COLLATE "C" NOT NULL REFERENCES wallets,
    call_id          text COLLATE "C" NOT NULL CHECK (length(call_id) BETWEEN 1 AND 64),
    provider_call_id text COLLATE "C" CHECK (length(provider_call_id) BETWEEN 1 AND 64),
    -- 0 only where a call without a hold was billed directly.
    reserved_micros  bigint NOT NULL CHECK (reserved_micros BETWEEN 0 AND 1000000000000000),
    -- How often it was extended, and by how much the last time: what makes a repeat the same.
    extensions       integer NOT NULL DEFAULT 0 CHECK (extensions >= 0),
    extended_micros  bigint NOT NULL DEFAULT 0 CHECK (extended_micros >= 0),
    -- Out of the hold: what was charged, what was given back.
    captured_micros  bigint NOT NULL DEFAULT 0 CHECK (captured_micros >= 0),
    released_micros  bigint NOT NULL DEFAULT 0 CHECK (released_micros >= 0),
    -- What the call cost in all, and what of it could not be charged and is owed.
    billed_micros    bigint CHECK (billed_micros BETWEEN 0 AND 1000000000000000),
    shortfall_micros bigint NOT NULL DEFAULT 0 CHECK (shortfall_micros >= 0),
    status           text NOT NULL CHECK (status IN ('open', 'committed', 'released', 'expired')),
    expires_at       timestamptz NOT NULL CHECK (isfinite(expires_at)),
    created_at       timestamptz NOT NULL,
    settled_at       timestamptz,
    PRIMARY KEY (organization_id, call_id),
    CONSTRAINT call_holds_provider_call UNIQUE (organization_id, provider_call_id),
    CHECK ((status = 'open') = (settled_at IS NULL)),
    CHECK (CASE status WHEN 'open' THEN captured_micros + released_micros = 0
                       ELSE captured_micros + released_micros = reserved_micros END),
    CHECK (CASE status WHEN 'open' THEN billed_micros IS NULL
                       WHEN 'committed' THEN billed_micros IS NOT NULL
                       ELSE captured_micros = 0 END),
    CHECK (captured_micros + shortfall_micros <= coalesce(billed_micros, 0))
);
CREATE INDEX call_holds_open ON call_holds (expires_at) WHERE status = 'open';
-- What one wallet holds is added up without reading the calls of years.
CREATE INDEX call_holds_open_of_organization ON call_holds (organization_id)
    WHERE status = 'open';

-- A settled hold stays as it is, but for the bill of a call that comes late; no hold is removed.
CREATE TRIGGER call_holds_settle_once BEFORE UPDATE ON call_holds FOR EACH ROW
    WHEN (OLD.status <> 'open' AND (OLD.billed_micros IS NOT NULL
        OR (OLD.status, OLD.reserved_micros, OLD.captured_micros, OLD.released_micros,
            OLD.settled_at) IS DISTINCT FROM
           (NEW.status, NEW.reserved_micros, NEW.captured_micros, NEW.released_micros,
            NEW.settled_at)))
    EXECUTE FUNCTION ledger_is_append_only();
CREATE TRIGGER call_holds_kept BEFORE DELETE OR TRUNCATE ON call_holds
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only();

-- The wallet's figures as they are now, for a replay too: the hold itself says what was reserved.
CREATE FUNCTION hold_ok(w wallets, p_before bigint, p_replayed boolean) RETURNS wallet_outcome
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
    SELECT ROW('OK', p_replayed, w.entry_no, w.balance_micros, w.held_micros, w.owed_micros,
               p_before)::wallet_outcome
$$;

-- One hold a call. Its first answer stands for every further request while it is open, whatever
-- amount that asks for: a repeated webhook sees other funds and would ask for another.
CREATE FUNCTION reserve_call_credits(
    p_org text, p_call text, p_provider_call text, p_amount bigint, p_currency text,
    p_expires_at timestamptz, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; h call_holds; v_before bigint;
BEGIN
    IF p_amount IS NULL OR p_amount NOT BETWEEN 1 AND 1000000000000000 THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    ELSIF (length(p_call) BETWEEN 1 AND 64) IS NOT TRUE
          OR length(p_provider_call) NOT BETWEEN 1 AND 64 THEN
        RETURN wallet_refusal('INVALID_CALL');
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    ELSIF w.currency IS DISTINCT FROM p_currency THEN
        RETURN wallet_refusal('CURRENCY_MISMATCH');
    END IF;
    v_before := w.balance_micros - w.held_micros;
    SELECT * INTO h FROM call_holds WHERE organization_id = p_org AND call_id = p_call;
    IF FOUND THEN
        IF h.provider_call_id <> p_provider_call THEN
            RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
        ELSIF h.status <> 'open' THEN
            RETURN wallet_refusal('CALL_SETTLED');
        END IF;
        RETURN hold_ok(w, v_before, true);
    ELSIF EXISTS (SELECT FROM call_holds
                  WHERE organization_id = p_org AND provider_call_id = p_provider_call) THEN
        RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
    -- One that never ended would strand its money with its call.
    ELSIF (p_expires_at > p_now AND isfinite(p_expires_at)) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_EXPIRY');
    ELSIF wallet_is_frozen(p_org, p_now) THEN
        RETURN wallet_refusal('FROZEN_WALLET');
    ELSIF v_before < p_amount THEN
        RETURN wallet_refusal('INSUFFICIENT_FUNDS');
    END IF;
    INSERT INTO call_holds (organization_id, call_id, provider_call_id, reserved_micros, status,
                            expires_at, created_at)
    VALUES (p_org, p_call, p_provider_call, p_amount, 'open', p_expires_at, p_now);
    w.held_micros := w.held_micros + p_amount;
    PERFORM ledger_store(w, p_now);
    RETURN hold_ok(w, v_before, false);
END
$$;

-- The nth extension (1, 2, …). The newest again is a replay if it asks for the same amount and a
-- conflict if not; an older one was made, and changes nothing; one too far is a conflict.
CREATE FUNCTION extend_call_credits(
    p_org text, p_call text, p_nth integer, p_amount bigint, p_expires_at timestamptz,
    p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; h call_holds; v_before bigint;
BEGIN
    IF p_amount IS NULL OR p_amount NOT BETWEEN 1 AND 1000000000000000 THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    ELSIF (p_nth >= 1) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_EXTENSION');
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    END IF;
    v_before := w.balance_micros - w.held_micros;
    SELECT * INTO h FROM call_holds WHERE organization_id = p_org AND call_id = p_call;
    IF NOT FOUND THEN
        RETURN wallet_refusal('HOLD_NOT_FOUND');
    ELSIF h.status <> 'open' THEN
        RETURN wallet_refusal('CALL_SETTLED');
    ELSIF p_nth < h.extensions OR (p_nth = h.extensions AND p_amount = h.extended_micros) THEN
        RETURN hold_ok(w, v_before, true);
    ELSIF p_nth <> h.extensions + 1 THEN
        RETURN wallet_refusal('IDEMPOTENCY_CONFLICT');
    ELSIF h.reserved_micros + p_amount > 1000000000000000 THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    ELSIF (p_expires_at > p_now AND isfinite(p_expires_at)) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_EXPIRY');
    ELSIF wallet_is_frozen(p_org, p_now) THEN
        RETURN wallet_refusal('FROZEN_WALLET');
    ELSIF v_before < p_amount THEN
        RETURN wallet_refusal('INSUFFICIENT_FUNDS');
    END IF;
    UPDATE call_holds SET reserved_micros = reserved_micros + p_amount, extensions = p_nth,
        extended_micros = p_amount, expires_at = greatest(expires_at, p_expires_at)
    WHERE organization_id = p_org AND call_id = p_call;
    w.held_micros := w.held_micros + p_amount;
    PERFORM ledger_store(w, p_now);
    RETURN hold_ok(w, v_before, false);
END
$$;

-- Charges what the call cost (0 for one that cost nothing), once, whatever became of its hold:
-- without one, or late, it bills directly. Allowed while frozen: the call has been made.
CREATE FUNCTION commit_reserved_credits(
    p_org text, p_call text, p_amount bigint, p_currency text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; h call_holds; v_answer wallet_outcome; v_before bigint; v_reserved bigint := 0;
    v_charge bigint; v_short bigint; v_key text := 'call:' || p_call || ':commit';
BEGIN
    IF p_amount IS NULL OR p_amount NOT BETWEEN 0 AND 1000000000000000 THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    ELSIF (length(p_call) BETWEEN 1 AND 64) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_CALL');
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    END IF;
    v_answer := wallet_replay(p_org, v_key, 'commit', 'call', p_amount, p_currency);
    IF v_answer.outcome IS NOT NULL THEN
        RETURN v_answer;
    ELSIF w.currency IS DISTINCT FROM p_currency THEN
        RETURN wallet_refusal('CURRENCY_MISMATCH');
    END IF;
    v_before := w.balance_micros - w.held_micros;
    SELECT * INTO h FROM call_holds WHERE organization_id = p_org AND call_id = p_call;
    IF h.status = 'open' THEN
        v_reserved := h.reserved_micros;
    END IF;
    w.held_micros := w.held_micros - v_reserved;
    -- What was held for this call is available to it now, so that a hold is always charged in full.
    v_charge := least(p_amount, w.balance_micros - w.held_micros + w.debt_limit_micros);
    v_short := p_amount - v_charge;
    IF w.owed_micros > 900000000000000000 - v_short THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    END IF;
    IF v_charge > 0 THEN
        w := ledger_append(w, 'call', 'debit', v_charge, w.owed_micros, 'calls', v_key, '', p_now);
    END IF;
    IF v_short > 0 THEN
        w := ledger_append(w, 'owed', 'note', v_short, w.owed_micros + v_short, 'owed', v_key, '',
                           p_now);
        w := ledger_place_freeze(w, 'call_shortfall', p_call, 'system',
                                 'a call cost more than could be charged', v_key, p_now);
    ELSE
        w := ledger_pay_owed(w, v_key, p_now);
    END IF;
    PERFORM ledger_store(w, p_now);
    PERFORM wallet_remember(w, v_key, 'commit', 'call', p_amount, p_now);
    IF h.status = 'open' THEN
        UPDATE call_holds SET status = 'committed', billed_micros = p_amount,
            shortfall_micros = v_short, captured_micros = least(p_amount, v_reserved),
            released_micros = v_reserved - least(p_amount, v_reserved), settled_at = p_now
        WHERE organization_id = p_org AND call_id = p_call;
    ELSE
        -- Without a hold, a row of its own; late, the bill on what is settled already.
        INSERT INTO call_holds (organization_id, call_id, reserved_micros, billed_micros,
                                shortfall_micros, status, expires_at, created_at, settled_at)
        VALUES (p_org, p_call, 0, p_amount, v_short, 'committed', p_now, p_now, p_now)
        ON CONFLICT (organization_id, call_id) DO UPDATE
            SET billed_micros = p_amount, shortfall_micros = v_short;
    END IF;
    RETURN wallet_ok(w, v_before);
END
$$;

-- Gives an open hold back whole, as 'released' or 'expired'; pays what is owed out of it first.
CREATE FUNCTION hold_give_back(w wallets, p_call text, p_status text, p_now timestamptz)
RETURNS wallets
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    v_reserved bigint;
BEGIN
    UPDATE call_holds SET status = p_status, released_micros = reserved_micros, settled_at = p_now
    WHERE organization_id = w.organization_id AND call_id = p_call AND status = 'open'
    RETURNING reserved_micros INTO STRICT v_reserved;
    w.held_micros := w.held_micros - v_reserved;
    RETURN ledger_pay_owed(w, 'call:' || p_call || ':' || p_status, p_now);
END
$$;

-- For a call that never began. One given back already, by whichever way, is a replay; one that was
-- billed is refused.
CREATE FUNCTION release_call_credits(p_org text, p_call text, p_now timestamptz)
RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; h call_holds; v_before bigint;
BEGIN
    SELECT * INTO w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    END IF;
    v_before := w.balance_micros - w.held_micros;
    SELECT * INTO h FROM call_holds WHERE organization_id = p_org AND call_id = p_call;
    IF NOT FOUND THEN
        RETURN wallet_refusal('HOLD_NOT_FOUND');
    ELSIF h.billed_micros IS NOT NULL THEN
        RETURN wallet_refusal('CALL_SETTLED');
    ELSIF h.status <> 'open' THEN
        RETURN hold_ok(w, v_before, true);
    END IF;
    w := hold_give_back(w, p_call, 'released', p_now);
    PERFORM ledger_store(w, p_now);
    RETURN hold_ok(w, v_before, false);
END
$$;

-- Expires those of an organization's holds that are, under the lock, still open and still expired;
-- gives the calls concerned. So expiry, extension and commit race safely.
CREATE FUNCTION cleanup_expired_reservations(
    p_org text, p_calls text[], p_now timestamptz,
    OUT expired text[], OUT answer wallet_outcome
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_call text; v_before bigint;
BEGIN
    expired := '{}';
    SELECT * INTO w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        answer := wallet_refusal('WALLET_NOT_FOUND');
        RETURN;
    END IF;
    v_before := w.balance_micros - w.held_micros;
    FOR v_call IN SELECT call_id FROM call_holds
                  WHERE organization_id = p_org AND call_id = ANY (p_calls)
                    AND status = 'open' AND expires_at <= p_now
                  ORDER BY call_id LOOP
        w := hold_give_back(w, v_call, 'expired', p_now);
        expired := expired || v_call;
    END LOOP;
    IF expired <> '{}' THEN
        PERFORM ledger_store(w, p_now);
    END IF;
    answer := hold_ok(w, v_before, expired = '{}');
END
$$;

-- An asset (a phone number) is paid whole and at once, never out of the debt limit.
CREATE FUNCTION check_balance_and_deduct_asset_cost(
    p_org text, p_key text, p_amount bigint, p_currency text, p_asset text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT wallet_debit(p_org, p_key, p_amount, p_currency, 'asset', 'assets', coalesce(p_asset, ''),
                        p_now)
$$;

-- How far below zero the cost of calls may take what is available: an operator's approval. It
-- changes nothing that is owed already, and is never set below what is in debt now.
CREATE FUNCTION wallet_set_debt_limit(
    p_org text, p_limit bigint, p_operator text, p_why text, p_now timestamptz
) RETURNS wallet_outcome
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    w wallets; v_before bigint;
BEGIN
    IF p_limit IS NULL OR p_limit NOT BETWEEN 0 AND 1000000000000000 THEN
        RETURN wallet_refusal('INVALID_AMOUNT');
    ELSIF (length(p_operator) > 0 AND length(p_why) > 0) IS NOT TRUE THEN
        RETURN wallet_refusal('INVALID_CORRECTION');
    END IF;
    SELECT * INTO w FROM wallets WHERE organization_id = p_org FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN wallet_refusal('WALLET_NOT_FOUND');
    END IF;
    v_before := w.balance_micros - w.held_micros;
    IF w.debt_limit_micros = p_limit THEN
        RETURN hold_ok(w, v_before, true);
    ELSIF v_before < -p_limit THEN
        RETURN wallet_refusal('DEBT_ABOVE_LIMIT');
    END IF;
    w := ledger_append(w, 'debt_limit', 'note', 0, w.owed_micros, 'debt_limit',
        'debt_limit:' || (w.entry_no + 1),
        p_operator || ': ' || p_why || ' (from ' || w.debt_limit_micros || ' to ' || p_limit || ')',
        p_now);
    UPDATE wallets SET debt_limit_micros = p_limit WHERE organization_id = p_org;
    PERFORM ledger_store(w, p_now);
    RETURN wallet_ok(w, v_before);
END
$$;

GRANT SELECT ON call_holds TO holdfast_app, holdfast_readonly;
REVOKE ALL ON FUNCTION hold_ok, reserve_call_credits, extend_call_credits, commit_reserved_credits,
    hold_give_back, release_call_credits, cleanup_expired_reservations,
    check_balance_and_deduct_asset_cost, wallet_set_debt_limit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reserve_call_credits, extend_call_credits, commit_reserved_credits,
    release_call_credits, cleanup_expired_reservations, check_balance_and_deduct_asset_cost,
    wallet_set_debt_limit TO holdfast_app;
