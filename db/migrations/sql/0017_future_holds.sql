-- Moves the end of open holds back by so many seconds, after the database's clock stepped back by as
-- many: of those that were made by the clock before the step, which bear a later instant than now.
-- Their making moves with them, so that a hold is moved once. Returns how many were moved. Money is
-- not touched.
CREATE OR REPLACE FUNCTION shift_call_holds(p_now timestamptz, p_seconds double precision)
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

-- Treats open holds that were made more than so many seconds from now as if they were made now. A
-- transaction that read the clock before a step back, and committed once the step was settled, makes
-- such a hold: its money would be kept for as long as the step. Holds that are locked are left to
-- the next time. Returns how many were moved.
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

REVOKE ALL ON FUNCTION pull_back_call_holds FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pull_back_call_holds TO holdfast_app;
