# shellcheck shell=bash
# shellcheck disable=SC2034  # the other topics use these variables
# What looks at a running MDL, opens its servers, or cleans up after it.

# Stops a running `up` the way Ctrl-C would, then whatever else is left.
down() {
  local holder group
  if [ ! -d "$DEV" ] && [ -z "$(orphaned_server_homes)" ]; then
    say "Nothing runs here."
    return
  fi
  if holder="$(remembered_process "$DEV/lock/process")"; then
    # A terminal's Ctrl-C goes to the whole group: cargo or npm, which `up` may be waiting for, have to end too.
    group="$(ps -p "$holder" -o pgid= | tr -d ' ')"
    if [ "$group" = "$holder" ]; then kill -TERM -- "-$group"; else kill -TERM "$holder"; fi
    local tries=0
    while process_runs "$holder"; do
      tries=$((tries + 1))
      [ "$tries" -lt 600 ] || die "The running ops/dev up (process $holder) does not end."
      sleep 0.1
    done
  fi
  take_lock
  trap release_lock EXIT
  open_instance "$DEV"
  open_logs
  stop_leftovers
  sweep_tests
  say "Everything is stopped."
}

reset() {
  local answer="" home
  case "${1:-}" in
    --yes | -y) answer=yes ;;
    "") ;;
    *) die "reset knows no argument \"$1\": see ops/dev help." ;;
  esac
  if [ -z "$answer" ]; then
    [ -t 0 ] || die "reset deletes $DEV with its database: say --yes to do that without a terminal."
    printf 'Delete %s with its database, uploads and passwords? [y/N] ' "$DEV"
    read -r answer || true
  fi
  case "$answer" in y | Y | yes) ;; *) die "Nothing was deleted." ;; esac
  down
  for home in "$DEV"/test-*; do
    [ ! -d "$home" ] || die "Tests are running: let them end, then reset."
  done
  [ "$SERVER_HOME" = "$DEV" ] || [ -z "$SERVER_HOME" ] || rm -rf "$SERVER_HOME"
  orphaned_server_homes | while read -r home; do rm -rf "$home"; done
  rm -rf "$DEV"
  say "Deleted $DEV."
}

status() {
  local holder name pid port
  if holder="$(remembered_process "$DEV/lock/process")"; then say "up:          runs (process $holder)"; else say "up:          does not run"; fi
  for name in api worker; do
    if pid="$(remembered_process "$DEV/$name.process")"; then
      printf '%-12s runs (process %s)\n' "$name:" "$pid"
    else
      printf '%-12s does not run\n' "$name:"
    fi
  done
  INSTANCE="$DEV"
  for name in postgres redis http ops worker-ops; do
    port="$(remembered_port "$name")"
    [ -n "$port" ] || continue
    if port_is_free "$port"; then
      printf '%-12s nothing listens on port %s\n' "$name:" "$port"
    else
      printf '%-12s 127.0.0.1:%s\n' "$name:" "$port"
    fi
  done
  say "logs:        $LOGS"
}

open_psql() {
  if [ -n "${DATABASE_URL:-}" ]; then
    have psql || die "psql is missing: install PostgreSQL's client programs."
    exec psql "${DATABASE_OWNER_URL:-$DATABASE_URL}" "$@"
  fi
  find_private_server postgres
  find_postgres || die "psql is missing: install PostgreSQL."
  POSTGRES_PORT="$(remembered_port postgres)"
  point_psql_at mdl
  exec "$PG_BIN/psql" "$@"
}

open_redis_cli() {
  local cli
  cli="$(command -v redis-cli || command -v valkey-cli)" || die "redis-cli is missing: install Redis."
  [ -z "${REDIS_URL:-}" ] || open_redis_cli_at "$cli" "$@"
  find_private_server redis
  REDISCLI_AUTH="$PRIVATE_PASSWORD" exec "$cli" -h 127.0.0.1 -p "$(remembered_port redis)" "$@"
}

# With the parts of REDIS_URL: redis-cli 7 takes a URL with a password and no user for one of the user "".
open_redis_cli_at() { # cli argument…
  local cli="$1" rest credential='' user='' host port=6379 database options=()
  shift
  case "$REDIS_URL" in
    redis://*) ;;
    rediss://*) options+=(--tls) ;;
    *) exec "$cli" -u "$REDIS_URL" "$@" ;;
  esac
  # redis-cli knows neither queries nor fragments.
  case "$REDIS_URL" in
    rediss://*'#insecure') options+=(--insecure) ;;
  esac
  rest="${REDIS_URL#*://}"
  rest="${rest%%#*}"
  rest="${rest%%\?*}"
  case "$rest" in
    *@*)
      credential="${rest%@*}"
      rest="${rest##*@}"
      ;;
  esac
  host="${rest%%/*}"
  database="${rest#"$host"}"
  database="${database#/}"
  case "$host" in
    \[*\]:* | [!\[]*:*)
      port="${host##*:}"
      host="${host%:*}"
      ;;
  esac
  host="${host#\[}"
  host="${host%\]}"
  user="$(unescaped "${credential%%:*}")"
  [ -z "$user" ] || options+=(--user "$user")
  [ -z "$database" ] || options+=(-n "$database")
  case "$credential" in
    *:*)
      REDISCLI_AUTH="$(unescaped "${credential#*:}")"
      export REDISCLI_AUTH
      ;;
  esac
  exec "$cli" -h "$host" -p "$port" ${options[@]+"${options[@]}"} "$@"
}

# A part of a URL, without its %xx.
unescaped() {
  local text="${1//\\/\\\\}"
  printf '%b' "${text//%/\\x}"
}

# A command of one of the programs, on the servers and with the binaries that `up` has started.
run_beside() { # api|worker argument…
  local program="$1" pid home name value
  shift
  [ $# -gt 0 ] || die "Give a command, which ops/dev $program --help lists: the $program itself runs with ops/dev up."
  pid="$(remembered_process "$DEV/api.process")" || die "It does not run: start it with ops/dev up."
  BIN_DIR="$(dirname "$(command_of "$pid")")"
  if [ -z "${DATABASE_URL:-}" ]; then
    find_private_server postgres
    POSTGRES_PORT="$(remembered_port postgres)"
    name_private_database
    # What brings a backup back is not for the programs that run.
    MDL_RESTORE_DATABASE_URL="$(private_database_url mdl_restore postgres)"
    export MDL_RESTORE_DATABASE_URL
    home="$(cat "$DEV/server-home" 2>/dev/null || echo "$DEV")"
    find_postgres "$(cat "$home/pg/data/PG_VERSION" 2>/dev/null || true)" || true
  fi
  if [ -z "${REDIS_URL:-}" ]; then
    find_private_server redis
    REDIS_PORT="$(remembered_port redis)"
    REDIS_URL="$(private_redis_url)"
  fi
  export DATABASE_URL DATABASE_OWNER_URL REDIS_URL
  # Those that run now: a worker without the warming's would turn that of all off, and other keys open no secret of webhooks.
  for name in MDL_WARM_SECRET MDL_WARM_API_URLS MDL_WEBHOOK_KEYS; do
    [ -z "${!name:-}" ] || continue
    value="$(tr '\0' '\n' 2>/dev/null <"/proc/$pid/environ" | sed -n "s/^$name=//p")" || true
    [ -z "$value" ] || export "$name=$value"
  done
  export MDL_WEBHOOK_KEYS="${MDL_WEBHOOK_KEYS:-$(webhook_key)}"
  export_files
  exec "$BIN_DIR/mdl-$program" "$@"
}

find_private_server() { # name
  local port
  INSTANCE="$DEV"
  port="$(remembered_port "$1")"
  if [ ! -f "$DEV/pgpass" ] || [ -z "$port" ] || port_is_free "$port"; then die "It does not run: start it with ops/dev up."; fi
  open_passwords
}
