# shellcheck shell=bash
# `load`: many users on the release build, with servers of its own. loadtests/README.md explains.

LOAD_TENANTS="north,south,east,west"
LOAD_METRICS=2500   # in each of the tenants
LOAD_FIRST_RATE=10000

load() {
  local tenant profile="" kept code=0
  case "${1:-}" in "" | -*) ;; *) profile="$1" && shift ;; esac
  measure_open
  # Each user has a connection, of which this process and the API hold an end.
  ulimit -Sn "$(ulimit -Hn)"
  measure_serve
  start_worker
  for tenant in $(echo "$LOAD_TENANTS" | tr , ' '); do
    measure_create_tenant "$tenant"
    import_generated "$tenant" "$LOAD_METRICS" metrics
    import_generated "$tenant" "$LOAD_METRICS" objectives
  done
  psql_as_superuser mdl -q -c 'VACUUM ANALYZE'
  # Without what the preparations have left in memory.
  measure_serve

  if [ -n "$profile" ]; then
    run_load "$profile" "$@" || code=$?
  else
    # Users at half of the highest rate that this machine keeps.
    run_load stress --rate "$LOAD_FIRST_RATE" "$@" || code=$?
    kept="$(sed -n 's/^highest rate kept: \([0-9]*\).*/\1/p' "$LOGS/load-stress.log")"
    [ -n "$kept" ] || die "Not even the first stage was kept: see above."
    measure_serve
    run_load steady "$@" --rate "$((kept / 2))" || code=$?
  fi
  return "$code"
}

# Prints what mdl-load says, and what became of the API's memory.
run_load() { # profile arguments
  local before code=0 profile="$1"
  shift
  before="$(resident_kb "$MEASURE_API" VmRSS)"
  mkdir -p "$DEV/load"
  MDL_LOAD_PASSWORD="$PRIVATE_PASSWORD" "$BIN_DIR/mdl-load" "$profile" --url "http://$MDL_HTTP_ADDR" --tenants "$LOAD_TENANTS" \
    --email admin@load.example --report "$DEV/load/$profile.html" "$@" >"$LOGS/load-$profile.log" || code=$?
  # Without the tables that goose prints as well.
  sed -n '/^stage  /,$p' "$LOGS/load-$profile.log"
  echo "api, resident: $((before / 1024)) MiB before, $(($(resident_kb "$MEASURE_API" VmRSS) / 1024)) MiB after, at most $(($(resident_kb "$MEASURE_API" VmHWM) / 1024)) MiB"
  echo "goose's report: $DEV/load/$profile.html"
  return "$code"
}
