-- Due safety jobs by name, for workers that claim them from PostgreSQL while Redis is silent.
--
-- Without it each take reads and sorts every open safety job. By name first, because workers take
-- some names only and must not step over a backlog of the others. Open safety jobs are few, and a
-- job that ends leaves the index, so finished jobs and other queues pay nothing for it.
CREATE INDEX jobs_safety_due ON jobs (name, due_at)
    WHERE ring_at IS NOT NULL AND queue = 'safety';
