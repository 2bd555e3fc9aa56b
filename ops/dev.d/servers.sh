# shellcheck shell=bash
# The private PostgreSQL and Redis of an instance.

POSTGRES_PORT=""
REDIS_PORT=""

# Starts PostgreSQL; durable for `up`, as what is in there is somebody's work, and careless for tests.
start_postgres() { # durable|careless
  local data="$SERVER_HOME/pg/data"
  require_postgres "$(cat "$data/PG_VERSION" 2>/dev/null || true)"
  [ -f "$data/PG_VERSION" ] || init_postgres "$data" "$1"
  write_postgres_settings "$1" >"$data/mdl.conf"

  # Between the look at a port and its use, somebody else may take it.
  for _ in 1 2 3; do
    POSTGRES_PORT="$(port_for postgres)"
    if as_server "$PG_BIN/pg_ctl" -D "$data" -w -t 60 -s -o "-p $POSTGRES_PORT" start >>"$LOGS/postgres.log" 2>&1 </dev/null; then
      return
    fi
    port_is_free "$POSTGRES_PORT" || continue
    break
  done
  tail -n 15 "$LOGS/postgres.log" >&2
  die "PostgreSQL does not start: its last words are above, all of them in $LOGS/postgres.log."
}

# Into a folder of another name first: a half-made database never has the right one.
init_postgres() { # data-folder durable|careless
  local new="$1.new" sync="" pwfile="$SERVER_HOME/pg/superuser-password"
  [ "$2" = durable ] || sync=--no-sync
  rm -rf "$new" "$pwfile"
  (umask 077 && printf '%s\n' "$PRIVATE_PASSWORD" >"$pwfile")
  [ -z "$SERVER_USER" ] || chown "$SERVER_USER" "$pwfile"
  as_server "$PG_BIN/initdb" -D "$new" -U postgres --pwfile="$pwfile" --auth=scram-sha-256 --locale=C --encoding=UTF8 \
    ${sync:+"$sync"} >>"$LOGS/postgres.log" 2>&1 </dev/null || {
    tail -n 15 "$LOGS/postgres.log" >&2
    die "PostgreSQL's initdb failed: its last words are above, all of them in $LOGS/postgres.log."
  }
  rm -f "$pwfile"
  echo "include_if_exists 'mdl.conf'" >>"$new/postgresql.conf"
  mv "$new" "$1"
}

# No Unix socket: its path may be 107 bytes long, and project folders are longer than one thinks.
write_postgres_settings() { # durable|careless
  echo "listen_addresses = '127.0.0.1'"
  echo "unix_socket_directories = ''"
  echo "password_encryption = 'scram-sha-256'"
  echo "timezone = 'UTC'"
  echo "log_timezone = 'UTC'"
  ! has_extension "$PG_BIN" pg_stat_statements || echo "shared_preload_libraries = 'pg_stat_statements'"
  if [ "$1" = durable ]; then
    echo "max_connections = 200"
  else
    echo "max_connections = 300"
    echo "fsync = off"
    echo "synchronous_commit = off"
    echo "full_page_writes = off"
    echo "autovacuum_naptime = '10min'"
  fi
}

# Creates the roles and the database `mdl`, or brings them up to date.
prepare_roles() {
  {
    echo "\\set owner_password '$(password_of mdl_owner)'"
    echo "\\set app_password '$(password_of mdl_app)'"
    echo "\\set backup_password '$(password_of mdl_backup)'"
    echo "\\set scratch_password '$(password_of mdl_scratch)'"
    echo "\\set restore_password '$(password_of mdl_restore)'"
    cat "$ROOT/ops/roles.sql"
  } | psql_as_superuser postgres -q -f - >>"$LOGS/postgres.log" 2>&1 || {
    tail -n 5 "$LOGS/postgres.log" >&2
    die "ops/roles.sql failed: see above."
  }
  # Not in the database mdl, whose schema belongs to the migrations; it shows the statements of all databases anyway.
  if has_extension "$PG_BIN" pg_stat_statements; then
    psql_as_superuser postgres -q -c 'SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS pg_stat_statements' >>"$LOGS/postgres.log" 2>&1 ||
      warn "pg_stat_statements could not be created; there are no statistics of statements."
  fi
}

psql_as_superuser() { # database [psql arguments]
  local database="$1"
  shift
  (
    point_psql_at "$database"
    exec "$PG_BIN/psql" -X "$@"
  )
}

# Whatever somebody's shell says about another server does not count here. The password comes from PGPASSFILE.
point_psql_at() { # database
  unset PGHOSTADDR PGSERVICE PGPASSWORD PGSSLMODE PGOPTIONS PGREQUIREAUTH PGCHANNELBINDING PGCLIENTENCODING
  export PGHOST=127.0.0.1 PGPORT="$POSTGRES_PORT" PGUSER=postgres PGDATABASE="$1"
}

private_database_url() { echo "postgres://$1:$(password_of "$1")@127.0.0.1:$POSTGRES_PORT/$2"; } # role database
private_redis_url() { echo "redis://:$PRIVATE_PASSWORD@127.0.0.1:$REDIS_PORT/0"; }

start_redis() {
  local folder="$SERVER_HOME/redis" tries
  require_redis
  for _ in 1 2 3; do
    REDIS_PORT="$(port_for redis)"
    (umask 077 && write_redis_settings "$folder" >"$folder/redis.conf")
    [ -z "$SERVER_USER" ] || chown "$SERVER_USER" "$folder/redis.conf"
    as_server "$REDIS_SERVER" "$folder/redis.conf" >>"$LOGS/redis.log" 2>&1 </dev/null || true
    tries=100
    while [ "$tries" -gt 0 ]; do
      redis_answers && return
      tries=$((tries - 1))
      sleep 0.1
    done
    stop_redis "$SERVER_HOME"
  done
  { cat "$LOGS/redis.log"; cat "$folder/redis.log"; } 2>/dev/null | tail -n 15 >&2
  die "Redis does not start: its last words are above, all of them in $folder/redis.log."
}

# Nothing is written to disk: what must last is in PostgreSQL.
write_redis_settings() { # folder
  cat <<REDIS
bind 127.0.0.1
port $REDIS_PORT
requirepass $PRIVATE_PASSWORD
daemonize yes
dir "$1"
pidfile "$1/redis.pid"
logfile "$1/redis.log"
save ""
appendonly no
tcp-backlog 128
REDIS
}

redis_answers() {
  [ "$( (
    exec 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT" || exit
    printf 'AUTH %s\r\nPING\r\n' "$PRIVATE_PASSWORD" >&3
    read -r -t 2 _ <&3 && read -r -t 2 answer <&3 && printf '%s' "$answer"
  ) 2>/dev/null)" = $'+PONG\r' ]
}

# Both servers of a server home, whoever started them.
stop_servers() { # server-home
  [ -d "$1" ] || return 0
  stop_redis "$1"
  stop_postgres "$1"
}

# The pid file may be an old one, and the pid somebody else's by now, even another Redis: ours is known by its file or its port.
stop_redis() { # server-home
  local pid port
  pid="$(cat "$1/redis/redis.pid" 2>/dev/null)" || return 0
  port="$(sed -n 's/^port //p' "$1/redis/redis.conf" 2>/dev/null)"
  case "$(command_of "$pid")" in
    *"$1/redis/redis.conf"* | *-server*"127.0.0.1:$port"*) stop_process "$pid" 10 ;;
  esac
  rm -f "$1/redis/redis.pid"
}

stop_postgres() { # server-home
  local data="$1/pg/data" bin
  [ -f "$data/postmaster.pid" ] || return 0
  # By the version that runs, which need not be the newest.
  find_postgres "$(cat "$data/PG_VERSION")" || return 0
  bin="$PG_BIN/pg_ctl"
  as_server "$bin" -D "$data" status >/dev/null 2>&1 || return 0
  as_server "$bin" -D "$data" -s -w -t 30 -m fast stop >>"$LOGS/postgres.log" 2>&1 ||
    as_server "$bin" -D "$data" -s -w -t 10 -m immediate stop >>"$LOGS/postgres.log" 2>&1 ||
    warn "PostgreSQL (in $data) does not stop: see $LOGS/postgres.log."
}
