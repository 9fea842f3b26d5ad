-- Moves open holds that were made before the database's clock stepped back by p_seconds: their
-- created_at lies in the future. Both created_at and expires_at move back by p_seconds, so that a hold
-- lasts as long as it was meant to, and is moved once. Returns the number of moved holds. No money
-- moves.
CREATE FUNCTION shift_call_holds(p_now timestamptz, p_seconds double precision)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH ahead AS MATERIALIZED (
        SELECT organization_id, call_id FROM call_holds
        WHERE status = 'open' AND created_at > p_now AND p_seconds > 0
        ORDER BY organization_id, call_id FOR NO KEY UPDATE
    ), moved AS (
        UPDATE call_holds h SET expires_at = h.expires_at - make_interval(secs => p_seconds),
                                created_at = h.created_at - make_interval(secs => p_seconds)
        FROM ahead
        WHERE h.organization_id = ahead.organization_id AND h.call_id = ahead.call_id
          AND h.status = 'open'
        RETURNING 1
    )
    SELECT count(*) FROM moved
$$;

-- Treats open holds whose created_at lies more than p_ahead_seconds in the future as made now. Such a
-- hold comes from a transaction that read the clock before a step back and committed after
-- shift_call_holds; its money would stay held for as long as the step. Locked holds are skipped until
-- the next call. Returns the number of moved holds.
CREATE FUNCTION pull_back_call_holds(p_now timestamptz, p_ahead_seconds double precision)
RETURNS bigint LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH ahead AS MATERIALIZED (
        SELECT organization_id, call_id FROM call_holds
        WHERE status = 'open' AND created_at > p_now + make_interval(secs => p_ahead_seconds)
        FOR NO KEY UPDATE SKIP LOCKED
    ), moved AS (
        UPDATE call_holds h SET expires_at = h.expires_at - (h.created_at - p_now),
                                created_at = p_now
        FROM ahead
        WHERE h.organization_id = ahead.organization_id AND h.call_id = ahead.call_id
          AND h.status = 'open'
        RETURNING 1
    )
    SELECT count(*) FROM moved
$$;

REVOKE ALL ON FUNCTION shift_call_holds, pull_back_call_holds FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shift_call_holds, pull_back_call_holds TO holdfast_app;
