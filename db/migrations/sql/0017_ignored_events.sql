-- Store a batch of verified events and stage the job of each new one. An event without a queue
-- concerns nothing: it is stored as ignored, and no job is staged.
--
-- Returns the verdict of each event in order: new, duplicate or differs.
CREATE OR REPLACE FUNCTION inbox_receive(
    p_ids text[], p_sources text[], p_external_ids text[], p_transmission_ids text[],
    p_event_types text[], p_bodies bytea[], p_correlation_ids text[],
    p_job_ids text[], p_queues text[]
) RETURNS text[]
LANGUAGE plpgsql SET search_path = public, pg_temp
-- One plan for batches of all sizes. If each call were planned anew, it would take half as long
-- again.
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    v_fresh text[];
BEGIN
    WITH given AS (
        SELECT * FROM unnest(p_ids, p_sources, p_external_ids, p_transmission_ids, p_event_types,
                             p_bodies, p_correlation_ids, p_job_ids, p_queues)
            AS g(id, source, external_id, transmission_id, event_type, body, correlation_id,
                 job_id, queue)
    ), fresh AS (
        INSERT INTO inbox (id, source, external_id, transmission_id, event_type, body, body_sha256,
                           correlation_id, received_at, handled_at, outcome)
        SELECT id, source, external_id, transmission_id, event_type, body, sha256(body),
               correlation_id, clock_timestamp(),
               CASE WHEN queue IS NULL THEN clock_timestamp() END,
               CASE WHEN queue IS NULL THEN 'ignored' END
        FROM given ORDER BY source, external_id, transmission_id
        ON CONFLICT DO NOTHING
        RETURNING id
    ), staged AS (
        INSERT INTO jobs (id, name, kwargs, queue, cause, correlation_id, ring_at)
        SELECT g.job_id, 'process_event', jsonb_build_object('event_id', g.id), g.queue, g.id,
               g.correlation_id, clock_timestamp() + interval '2 seconds'
        FROM given g JOIN fresh f USING (id) WHERE g.queue IS NOT NULL
    )
    SELECT array_agg(id) INTO v_fresh FROM fresh;

    IF cardinality(v_fresh) = cardinality(p_ids) THEN
        RETURN array_fill('new'::text, ARRAY[cardinality(p_ids)]);
    END IF;

    -- A separate statement, which sees what a concurrent batch committed in the meantime.
    RETURN (
        SELECT array_agg(
            CASE
                WHEN g.id = ANY (v_fresh) THEN 'new'
                WHEN EXISTS (
                    SELECT FROM inbox i
                    WHERE i.source = g.source AND i.body_sha256 <> sha256(g.body)
                      AND (i.external_id = g.external_id OR i.transmission_id = g.transmission_id)
                ) THEN 'differs'
                ELSE 'duplicate'
            END ORDER BY g.ordinality)
        FROM unnest(p_ids, p_sources, p_external_ids, p_transmission_ids, p_bodies)
            WITH ORDINALITY AS g(id, source, external_id, transmission_id, body, ordinality)
    );
END
$$;
