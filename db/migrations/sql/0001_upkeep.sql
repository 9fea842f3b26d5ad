-- What people did by hand, and what happens by itself at its time.

-- One row an act: who did what to which row, why and when. Written, never changed.
CREATE TABLE operator_acts (
    id       text COLLATE "C" PRIMARY KEY,
    act      text COLLATE "C" NOT NULL CHECK (act ~ '^[a-z_]+\.[a-z_]+$' AND length(act) <= 64),
    -- The id of the row that was acted on.
    subject  text COLLATE "C" NOT NULL CHECK (length(subject) BETWEEN 1 AND 200),
    operator text NOT NULL CHECK (length(operator) BETWEEN 1 AND 200),
    why      text NOT NULL CHECK (length(why) BETWEEN 1 AND 500),
    acted_at timestamptz NOT NULL
);
CREATE INDEX operator_acts_subject ON operator_acts (subject, id);

-- Periodic work, which domain/jobs/schedules.py declares. The transaction that moves next_at also
-- stages the job.
CREATE TABLE schedules (
    name          text COLLATE "C" PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 64),
    -- As the relay that ticked it last declares it.
    every_seconds integer NOT NULL CHECK (every_seconds BETWEEN 1 AND 2678400),
    next_at       timestamptz NOT NULL,
    last_at       timestamptz,
    last_job_id   text COLLATE "C",
    -- When a relay last said that this schedule is among those it knows.
    declared_at   timestamptz NOT NULL
);

GRANT SELECT ON operator_acts, schedules TO holdfast_app, holdfast_readonly;
GRANT INSERT ON operator_acts TO holdfast_app;
GRANT INSERT, UPDATE, DELETE ON schedules TO holdfast_app;
