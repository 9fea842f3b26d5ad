-- Moves the end of open holds back by so many seconds, after the database's clock stepped back by as
-- many: of those that were made by the clock before the step, which bear a later instant than now.
-- Each then lasts as long as it was meant to. Returns how many were moved. Money is not touched.
CREATE FUNCTION shift_call_holds(p_now timestamptz, p_seconds double precision) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH ahead AS MATERIALIZED (
        SELECT organization_id, call_id FROM call_holds
        WHERE status = 'open' AND created_at > p_now AND p_seconds > 0
        ORDER BY organization_id, call_id FOR NO KEY UPDATE
    ), moved AS (
        UPDATE call_holds h SET expires_at = h.expires_at - make_interval(secs => p_seconds)
        FROM ahead
        WHERE h.organization_id = ahead.organization_id AND h.call_id = ahead.call_id
          AND h.status = 'open'
        RETURNING 1
    )
    SELECT count(*) FROM moved
$$;

REVOKE ALL ON FUNCTION shift_call_holds FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shift_call_holds TO holdfast_app;
