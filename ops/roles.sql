-- The roles and the database of MDL. Run by psql as a superuser; running it again changes nothing but the passwords given.
--
--   psql -X -v owner_password=… -v app_password=… -v backup_password=… -v scratch_password=… -v restore_password=… \
--     -f ops/roles.sql "postgres://postgres@db.example/postgres"
--
-- Variables, all optional:
--   database          the database to create, mdl if not given
--   owner_password    password of mdl_owner
--   app_password      password of mdl_app
--   backup_password   password of mdl_backup
--   scratch_password  password of mdl_scratch
--   restore_password  password of mdl_restore
-- A role whose password is not given keeps the one it has (a new role then cannot log in by password).
-- Arguments are visible in the list of processes: on a shared machine put \set lines before this file on standard input instead.
--
-- Needs PostgreSQL 15 or newer. pg_trgm and btree_gin must be installable (they are trusted: the migrations create them).

\set ON_ERROR_STOP on
\set QUIET on
SET client_min_messages = warning;

\if :{?database}
\else
  \set database mdl
\endif

-- mdl_owner owns the database and everything that the migrations create. Row level security is forced, so it sees no tenant's rows.
-- mdl_app   is what api and worker connect as: it owns nothing and cannot step around row level security.
-- mdl_backup reads every tenant's rows and writes nothing.
-- mdl_scratch restores backups into databases of its own, to see whether they are good. It is a member of nothing and may not even
--            connect to the database of MDL: what a forged backup makes it do, it does to its own scratch.
-- mdl_restore brings a backup back for good: makes a database, fills it as mdl_owner, and puts it in the other one's place. Only
--            operators who restore need its password, never the programs that run.
-- mdl_search owns only the SECURITY DEFINER functions that search, which look across row level security and filter by tenant themselves.
SELECT format('CREATE ROLE %I', name)
  FROM unnest(ARRAY['mdl_owner', 'mdl_app', 'mdl_backup', 'mdl_scratch', 'mdl_restore', 'mdl_search']) AS name
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

ALTER ROLE mdl_owner  LOGIN   NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;
ALTER ROLE mdl_app    LOGIN   NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS;
ALTER ROLE mdl_backup LOGIN   NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION BYPASSRLS;
ALTER ROLE mdl_scratch LOGIN  NOSUPERUSER NOCREATEROLE CREATEDB   NOREPLICATION BYPASSRLS;
ALTER ROLE mdl_restore LOGIN  NOSUPERUSER NOCREATEROLE CREATEDB   NOREPLICATION BYPASSRLS;
ALTER ROLE mdl_search NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION BYPASSRLS;
ALTER ROLE mdl_backup SET default_transaction_read_only = on;

-- The programs tell the end of a session, which is worth trying again, from other errors by its English text. Some hosts keep this
-- setting to themselves: there the server has to speak English.
DO $$ BEGIN
  ALTER ROLE mdl_app SET lc_messages = 'C';
EXCEPTION WHEN insufficient_privilege THEN
  NULL;
END $$;

\if :{?owner_password}
  ALTER ROLE mdl_owner PASSWORD :'owner_password';
\endif
\if :{?app_password}
  ALTER ROLE mdl_app PASSWORD :'app_password';
\endif
\if :{?backup_password}
  ALTER ROLE mdl_backup PASSWORD :'backup_password';
\endif
\if :{?scratch_password}
  ALTER ROLE mdl_scratch PASSWORD :'scratch_password';
\endif
\if :{?restore_password}
  ALTER ROLE mdl_restore PASSWORD :'restore_password';
\endif

-- A migration hands functions over to mdl_search, for which mdl_owner must be a member. It is not to inherit anything from it:
-- said with the grant since PostgreSQL 16, by the role itself before.
SELECT current_setting('server_version_num')::int >= 160000 AS grant_has_options \gset
\if :grant_has_options
  GRANT mdl_search TO mdl_owner WITH INHERIT FALSE, SET TRUE;
  GRANT mdl_owner, mdl_search TO mdl_restore WITH INHERIT TRUE, SET TRUE;
\else
  ALTER ROLE mdl_owner NOINHERIT;
  GRANT mdl_search TO mdl_owner;
  GRANT mdl_owner, mdl_search TO mdl_restore;
\endif
-- Who takes a database's place has to end the connections to it.
GRANT pg_signal_backend TO mdl_restore;

-- Locale C: the same order of text on every machine, and indexes that an operating system upgrade cannot break.
SELECT format('CREATE DATABASE %I OWNER mdl_owner ENCODING ''UTF8'' TEMPLATE template0 LC_COLLATE ''C'' LC_CTYPE ''C''', :'database')
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec

REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT, TEMPORARY ON DATABASE :"database" TO mdl_app;
GRANT CONNECT ON DATABASE :"database" TO mdl_backup;

\connect :"database"
SET client_min_messages = warning;

ALTER SCHEMA public OWNER TO mdl_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mdl_app, mdl_backup;
-- Taking over a function takes CREATE on its schema. Which tables the functions may read is granted beside them, in the migrations.
GRANT USAGE, CREATE ON SCHEMA public TO mdl_search;

-- Default privileges only, nothing on the tables that exist: a migration that takes a privilege away (say, UPDATE on an append-only
-- table) is not undone by running this file again.
ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO mdl_app;
ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO mdl_app;
ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner IN SCHEMA public GRANT EXECUTE ON FUNCTIONS TO mdl_app;
ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner IN SCHEMA public GRANT SELECT ON TABLES TO mdl_backup;
ALTER DEFAULT PRIVILEGES FOR ROLE mdl_owner IN SCHEMA public GRANT SELECT ON SEQUENCES TO mdl_backup;
