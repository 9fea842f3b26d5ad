-- The highest instant of this database's clock that any process has seen. The table has one row,
-- which the first process to read the clock inserts. A clock that shows less has stepped back.
CREATE TABLE database_clock (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

GRANT SELECT ON database_clock TO holdfast_app, holdfast_readonly;
GRANT INSERT, UPDATE ON database_clock TO holdfast_app;
