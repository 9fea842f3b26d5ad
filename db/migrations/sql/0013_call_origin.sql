-- Derives a call's origin (how it became known) for rows of a version that does not write it.
--
-- Workers of such a version may run while this one is rolled out. If a transaction inserts a call
-- without an origin, the origin is derived at its end, by the rule that converted the older rows. A
-- call whose timeline contains 'adopted' was adopted. Any other outgoing call was reserved.
CREATE FUNCTION call_origin(p_org text, p_call text, p_direction text) RETURNS text
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM call_timeline t
                     WHERE t.organization_id = p_org AND t.call_id = p_call
                       AND t.what = 'adopted') THEN 'adopted'
        WHEN p_direction = 'outbound' THEN 'reserved'
        ELSE 'admitted' END
$$;

CREATE FUNCTION call_derive_origin() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE calls SET origin = call_origin(organization_id, id, direction)
    WHERE organization_id = NEW.organization_id AND id = NEW.id AND origin IS NULL;
    RETURN NULL;
END
$$;

-- Costs nothing for rows that have an origin: the condition is checked when a row is inserted.
CREATE CONSTRAINT TRIGGER calls_derive_origin AFTER INSERT ON calls
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.origin IS NULL)
    EXECUTE FUNCTION call_derive_origin();

REVOKE ALL ON FUNCTION call_origin, call_derive_origin FROM PUBLIC;
GRANT EXECUTE ON FUNCTION call_origin TO holdfast_app;

-- Converts the rows that such workers have written until now and that may still be paired.
UPDATE calls SET origin = call_origin(organization_id, id, direction)
WHERE origin IS NULL AND (settled_at IS NULL OR created_at > now() - interval '2 days');
