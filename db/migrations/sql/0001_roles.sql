-- Roles. Cluster-wide, so each is made only where it is missing.
-- holdfast_owner     owns tables and functions; nobody logs in as it.
-- holdfast_app       ingress, workers and relay log in as it: it may not write the ledger's tables.
-- holdfast_readonly  for consoles and people.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_owner') THEN
        CREATE ROLE holdfast_owner NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_app') THEN
        CREATE ROLE holdfast_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_readonly') THEN
        CREATE ROLE holdfast_readonly LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
    END IF;
END
$$;

-- Timeouts stand on the role and not in the connection, because a transaction pooler such as
-- PgBouncer hands the same server connection to many clients and refuses start-up options.
ALTER ROLE holdfast_app SET lock_timeout = '2s';
ALTER ROLE holdfast_app SET statement_timeout = '5s';
ALTER ROLE holdfast_app SET idle_in_transaction_session_timeout = '5s';
ALTER ROLE holdfast_app SET timezone = 'UTC';
ALTER ROLE holdfast_readonly SET statement_timeout = '30s';
ALTER ROLE holdfast_readonly SET default_transaction_read_only = on;

-- In a database begun before PostgreSQL 15 everybody may make functions in public; one that looks
-- like a built-in would be called by the ledger's own, with its owner's rights.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT holdfast_owner TO CURRENT_USER;
GRANT USAGE, CREATE ON SCHEMA public TO holdfast_owner;
GRANT USAGE ON SCHEMA public TO holdfast_app, holdfast_readonly;
