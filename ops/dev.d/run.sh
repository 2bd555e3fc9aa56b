# shellcheck shell=bash
# shellcheck disable=SC2034  # the other topics use these variables
# `up`: from nothing to a running MDL, and back.

# Loopback only and full of sample data: a password that one can remember is worth more than a strong one.
DEMO_TENANT=demo
API_PID=""
WORKER_PID=""
IMPORT_PID=""

up() {
  local release=""
  while [ $# -gt 0 ]; do
    case "$1" in
      --release) release=--release ;;
      --no-install) MAY_INSTALL=0 ;;
      *) die "up knows no argument \"$1\": see ops/dev help." ;;
    esac
    shift
  done
  [ -z "${DATABASE_URL:-}" ] || [ -n "${DATABASE_OWNER_URL:-}" ] ||
    die "DATABASE_URL is set, so DATABASE_OWNER_URL must be set too: the migrations run as mdl_owner (see ops/roles.sql)."

  take_lock
  trap 'leave $?' EXIT
  trap interrupted INT
  trap 'exit 143' TERM HUP
  open_instance "$DEV"
  open_logs
  stop_leftovers

  # First what may be missing, so that nobody waits for a build to learn it.
  [ -n "${DATABASE_URL:-}" ] || require_postgres "$(cat "$SERVER_HOME/pg/data/PG_VERSION" 2>/dev/null || true)"
  [ -n "${REDIS_URL:-}" ] || require_redis
  build_programs ${release:+"$release"}
  build_web

  rotate_logs
  start_own_servers
  export_environment
  prepare_database
  start_program api serve && API_PID=$STARTED_PID
  start_program worker run && WORKER_PID=$STARTED_PID
  wait_until_ready
  import_sample_catalog
  print_block
  while programs_run; do
    # A signal ends `wait` at once, where it would let a plain sleep finish first.
    sleep 1 &
    wait $! 2>/dev/null || true
  done
}

start_own_servers() {
  if [ -z "${DATABASE_URL:-}" ]; then
    start_postgres durable
    prepare_roles
    name_private_database
  fi
  if [ -z "${REDIS_URL:-}" ]; then
    start_redis
    REDIS_URL="$(private_redis_url)"
  fi
  export DATABASE_URL DATABASE_OWNER_URL REDIS_URL
}

name_private_database() {
  DATABASE_URL="$(private_database_url mdl_app mdl)"
  DATABASE_OWNER_URL="$(private_database_url mdl_owner mdl)"
  MDL_BACKUP_DATABASE_URL="$(private_database_url mdl_backup mdl)"
  MDL_BACKUP_SCRATCH_URL="$(private_database_url mdl_scratch postgres)"
  export MDL_BACKUP_DATABASE_URL MDL_BACKUP_SCRATCH_URL
}

# What the programs are told. Anything that is set already stays.
export_environment() {
  export MDL_HTTP_ADDR="${MDL_HTTP_ADDR:-127.0.0.1:$(port_for http 8080)}"
  export MDL_OPS_ADDR="${MDL_OPS_ADDR:-127.0.0.1:$(port_for ops)}"
  export MDL_WORKER_OPS_ADDR="${MDL_WORKER_OPS_ADDR:-127.0.0.1:$(port_for worker-ops)}"
  export MDL_WEBHOOK_KEYS="${MDL_WEBHOOK_KEYS:-$(webhook_key)}"
  # Less than stop_process waits for them.
  export MDL_SHUTDOWN_GRACE_SECONDS="${MDL_SHUTDOWN_GRACE_SECONDS:-10}"
  export MDL_WORKER_GRACE_SECONDS="${MDL_WORKER_GRACE_SECONDS:-10}"
  export MDL_WEB_DIR="${MDL_WEB_DIR:-$ROOT/web/dist}"
  export MDL_WARM_SECRET="${MDL_WARM_SECRET:-$(random_password)}"
  export MDL_WARM_API_URLS="${MDL_WARM_API_URLS:-http://$MDL_HTTP_ADDR}"
  export_files
}

# Where backups go, and the keys that open them. The tools are those of the server's version, which need not be on the PATH.
export_backups() {
  local keys="$DEV/backup-keys.txt" place="$DEV/backups"
  export MDL_BACKUP_URL="${MDL_BACKUP_URL:-file://${place// /%20}}"
  [ -z "$PG_BIN" ] || export MDL_BACKUP_TOOLS_DIR="${MDL_BACKUP_TOOLS_DIR:-$PG_BIN}"
  [ -z "${MDL_BACKUP_RECIPIENTS:-}" ] || return 0
  if [ ! -s "$keys" ]; then
    (umask 077 && "$BIN_DIR/mdl-worker" backup keygen >"$keys.new") || die "mdl-worker backup keygen failed: it says why above."
    mv "$keys.new" "$keys"
  fi
  MDL_BACKUP_RECIPIENTS="$(sed -n 's/^# public key: //p' "$keys")"
  export MDL_BACKUP_RECIPIENTS MDL_BACKUP_IDENTITY_FILE="${MDL_BACKUP_IDENTITY_FILE:-$keys}"
}

# Where uploads are, and the key that signs access tokens.
export_files() {
  export_backups
  local storage="$DEV/storage"
  mkdir -p "$storage"
  chmod 700 "$storage"
  export MDL_STORAGE_URL="${MDL_STORAGE_URL:-file://${storage// /%20}}"
  if [ -z "${MDL_SIGNING_KEY_FILE:-}" ]; then
    export MDL_SIGNING_KEY_FILE="$DEV/signing-key.pem"
    if [ ! -s "$MDL_SIGNING_KEY_FILE" ]; then
      (umask 077 && "$BIN_DIR/mdl-api" keygen >"$MDL_SIGNING_KEY_FILE.new") || die "mdl-api keygen failed: it says why above."
      mv "$MDL_SIGNING_KEY_FILE.new" "$MDL_SIGNING_KEY_FILE"
    fi
  fi
}

# Migrations always; the demo tenant and its users once for each database, so that a user who was deleted stays deleted.
prepare_database() {
  local api="$BIN_DIR/mdl-api" role
  "$api" migrate >>"$LOGS/migrate.log" 2>&1 || {
    tail -n 20 "$LOGS/migrate.log" >&2
    die "The migrations failed: see above, and $LOGS/migrate.log."
  }
  done_once demo-users && return
  printf '%s' "$(demo_password admin)" |
    "$api" tenant create --slug "$DEMO_TENANT" --name "Demo Company" --admin-email "$(demo_email admin)" \
      --admin-password-stdin --if-missing >>"$LOGS/migrate.log" 2>&1 || demo_failed
  for role in editor viewer; do
    printf '%s' "$(demo_password "$role")" |
      "$api" user create --tenant "$DEMO_TENANT" --email "$(demo_email "$role")" --name "Demo $role" --role "$role" \
        --password-stdin --if-missing >>"$LOGS/migrate.log" 2>&1 || demo_failed
  done
  remember_done demo-users
}

# What encrypts the secrets of webhooks in this database: made once, and kept with it.
webhook_key() {
  [ -s "$DEV/webhook-key" ] || (umask 077 && head -c 32 /dev/urandom | base64 >"$DEV/webhook-key")
  cat "$DEV/webhook-key"
}

demo_failed() {
  tail -n 20 "$LOGS/migrate.log" >&2
  die "The demo tenant could not be created: see above, and $LOGS/migrate.log."
}

demo_email() { echo "$1@demo.example"; }
demo_password() { echo "demo-$1-password"; }

# A stamp belongs to one database: a new one in the same place starts from the beginning.
stamp_of() { # what
  local database
  if [ -n "$POSTGRES_PORT" ]; then
    database="$(psql_as_superuser mdl -At -c \
      "SELECT system_identifier || '-' || oid FROM pg_control_system(), pg_database WHERE datname = current_database()")"
  else
    # Without the password, which may change.
    database="own-$(printf '%s' "$DATABASE_URL" | sed -E 's#//[^@/]*@#//#' | cksum | tr ' ' '-')"
  fi
  echo "$DEV/done/$1-$database"
}
done_once() { [ -f "$(stamp_of "$1")" ]; }
remember_done() {
  mkdir -p "$DEV/done"
  : >"$(stamp_of "$1")"
}

# In a process group of its own (set -m), so that Ctrl-C reaches only this script, which then stops things in order.
start_program() { # api|worker argument
  local tries=0 own
  set -m
  "$BIN_DIR/mdl-$1" "$2" >>"$LOGS/$1.log" 2>&1 </dev/null &
  STARTED_PID=$!
  set +m
  # Until it has become the program, it looks like this script.
  own="$(command_of $$)"
  while [ "$(command_of "$STARTED_PID")" = "$own" ] && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    sleep 0.02
  done
  remember_process "$STARTED_PID" "$DEV/$1.process"
}

rotate_logs() {
  local name
  for name in api worker migrate postgres redis; do
    [ ! -f "$LOGS/$name.log" ] || mv -f "$LOGS/$name.log" "$LOGS/$name.log.1"
  done
}

# Says which of the programs ended, and ends with it.
programs_run() {
  local name pid
  for name in api worker; do
    pid=$API_PID
    [ "$name" = api ] || pid=$WORKER_PID
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -n 20 "$LOGS/$name.log" >&2
      die "mdl-$name ended unexpectedly: its last words are above, all of them in $LOGS/$name.log."
    fi
  done
}

wait_until_ready() {
  local tries=0
  until api_is_ready; do
    programs_run
    tries=$((tries + 1))
    if [ "$tries" -ge 300 ]; then
      tail -n 20 "$LOGS/api.log" >&2
      die "The API is not ready after a minute: its last words are above, all of them in $LOGS/api.log."
    fi
    sleep 0.2
  done
}

# Without curl, which a fresh machine need not have.
api_is_ready() {
  local host="${MDL_HTTP_ADDR%:*}" status
  [ "$host" != 0.0.0.0 ] || host=127.0.0.1
  status="$( (
    exec 3<>"/dev/tcp/$host/${MDL_HTTP_ADDR##*:}" || exit
    printf 'GET /health/ready HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$MDL_HTTP_ADDR" >&3
    read -r -t 5 _ status _ <&3 && printf '%s' "$status"
  ) 2>/dev/null)" || return 1
  [ "$status" = 200 ]
}

# By a job of the worker, as any import; once for each database. MDL is of use without it, so a failure does not end anything.
import_sample_catalog() {
  local file
  set --
  for file in "$ROOT"/ops/sample-catalog/*.json "$ROOT"/ops/sample-catalog/*.yaml "$ROOT"/ops/sample-catalog/*.yml; do
    [ ! -f "$file" ] || set -- "$@" "$file"
  done
  [ $# -gt 0 ] || return 0
  ! done_once sample-catalog || return 0
  say "Importing the sample catalog…"
  "$BIN_DIR/mdl-api" import --tenant "$DEMO_TENANT" --wait "$@" </dev/null &
  IMPORT_PID=$!
  # It waits for the worker: if that one ends, it would wait forever.
  while kill -0 "$IMPORT_PID" 2>/dev/null; do
    programs_run
    sleep 0.2
  done
  if wait "$IMPORT_PID"; then
    remember_done sample-catalog
  else
    warn "the sample catalog was not imported: see above, $LOGS/api.log and $LOGS/worker.log. The next start tries again."
  fi
  IMPORT_PID=""
}

print_block() {
  local role url="http://$MDL_HTTP_ADDR" missing=""
  [ -z "$WEB_PROBLEM" ] || missing="  (not built: $WEB_PROBLEM)"
  cat <<BLOCK

MDL is running.

  GraphiQL       $url/graphiql$missing
  GraphQL        $url/graphql
  Log in         to the tenant "$DEMO_TENANT" with one of
BLOCK
  for role in admin editor viewer; do
    printf '                   %-22s %s\n' "$(demo_email "$role")" "$(demo_password "$role")"
  done
  cat <<BLOCK
  Metrics        http://$MDL_OPS_ADDR/metrics (api), http://$MDL_WORKER_OPS_ADDR/metrics (worker)
  Logs           $LOGS (of the run before: *.log.1)
  Database       ops/dev psql

Ctrl-C stops everything.

BLOCK
}

interrupted() {
  printf '\nStopping…\n'
  exit 0
}

# On every way out of `up`: what was started ends in the reverse order, whatever went wrong before.
leave() { # exit code
  trap '' INT TERM HUP
  trap - EXIT
  set +e
  [ -z "$IMPORT_PID" ] || stop_process "$IMPORT_PID" 2
  stop_leftovers
  allow_service_starts
  release_lock
  exit "$1"
}

# Stops what belongs to .dev, whether this run started it or one that was killed. Worker first: it finishes its jobs through the rest.
stop_leftovers() {
  local name pid
  for name in worker api; do
    if pid="$(remembered_process "$DEV/$name.process")"; then stop_process "$pid" 15; fi
    rm -f "$DEV/$name.process"
  done
  wait 2>/dev/null
  stop_servers "$SERVER_HOME"
  orphaned_server_homes | while read -r name; do stop_servers "$name"; done
}
