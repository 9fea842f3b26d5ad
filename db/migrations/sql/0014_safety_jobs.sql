-- Finds due safety jobs by name, for workers that take them from PostgreSQL while Redis is silent.
--
-- Without this index, each take reads and sorts every open safety job. The name is the first
-- column, because a worker takes some names only and must not read through a backlog of the others.
-- Open safety jobs are few, and a job that ends leaves the index. The index therefore costs
-- finished jobs and other queues nothing.
CREATE INDEX jobs_safety_due ON jobs (name, due_at)
    WHERE ring_at IS NOT NULL AND queue = 'safety';
