# shellcheck shell=bash
# `measure`: speed and memory of the release build, as shares of what PostgreSQL's own tools and a bare HTTP server reach on the same
# machine. loadtests/README.md explains. The table of the five shapes is in shapes.sh.

MEASURE_TENANT=""   # id of the tenant that the load reads
MEASURE_COUNT=0     # metrics in it
MEASURE_API="" MEASURE_WORKER="" MEASURE_FLOOR="" MEASURE_PEER=""   # processes that run
MEASURE_SECONDS=8   # length of one run of wrk or pgbench; each is run twice
MEASURE_WITH_PEER=""   # not empty: a GraphQL server of other makers, too

measure() {
  local count="" grown=""
  while [ $# -gt 0 ]; do
    case "$1" in
      --seconds) MEASURE_SECONDS="${2:-}" && shift ;;
      --grow) grown="${2:-}" && shift ;;
      --peer) MEASURE_WITH_PEER=yes ;;
      -*) die "measure knows no argument \"$1\": see ops/dev help." ;;
      *) count="$1" ;;
    esac
    shift
  done
  count="${count:-10000}"
  is_number "$count" && is_number "$MEASURE_SECONDS" && is_number "${grown:-1}" || die "measure takes numbers: ops/dev measure 10000 --seconds 8 --grow 1000000"
  [ -z "$grown" ] || [ "$grown" -gt "$count" ] || die "--grow takes more metrics than there are at first ($count)."
  [ -z "$MEASURE_WITH_PEER" ] || have npm || die "--peer needs Node.js with npm: see https://nodejs.org"
  have wrk || install_packages wrk wrk wrk wrk || die "$INSTALL_PROBLEM"
  measure_open
  measure_create_tenant demo
  psql_as_superuser mdl -q -c "INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), 'psql', 'psql')"
  MEASURE_TENANT="$(psql_as_superuser mdl -Atc "SELECT id FROM tenants WHERE slug = 'demo'")"

  measure_start
  measure_import "$count"
  measure_shapes
  [ -z "$grown" ] || measure_grown "$grown"
  measure_report
}

is_number() { case "$1" in "" | *[!0-9]*) return 1 ;; esac; }

# Servers of its own, the release build, and what the programs are told: nothing limits callers.
measure_open() {
  require_cargo
  open_test_instance
  trap 'measure_leave $?' EXIT
  step "release build" build_programs --release

  DATABASE_URL="$(private_database_url mdl_app mdl)"
  DATABASE_OWNER_URL="$(private_database_url mdl_owner mdl)"
  REDIS_URL="$MDL_TEST_REDIS_URL"
  MDL_STORAGE_URL="file://$INSTANCE/storage"
  MDL_SIGNING_KEY_FILE="$INSTANCE/signing-key.pem"
  MDL_HTTP_ADDR="127.0.0.1:$(port_for api)"
  MDL_OPS_ADDR="127.0.0.1:$(port_for ops)"
  MDL_WORKER_OPS_ADDR="127.0.0.1:$(port_for worker)"
  MDL_RATE_LIMIT_PER_SECOND=1000000
  MDL_RATE_LIMIT_BURST=1000000
  MDL_SIGN_IN_LIMIT_PER_MINUTE=1000
  export DATABASE_URL DATABASE_OWNER_URL REDIS_URL MDL_STORAGE_URL MDL_SIGNING_KEY_FILE MDL_HTTP_ADDR MDL_OPS_ADDR MDL_WORKER_OPS_ADDR
  export MDL_RATE_LIMIT_PER_SECOND MDL_RATE_LIMIT_BURST MDL_SIGN_IN_LIMIT_PER_MINUTE
  "$BIN_DIR/mdl-api" keygen >"$MDL_SIGNING_KEY_FILE"
  "$BIN_DIR/mdl-api" migrate >/dev/null
}

measure_create_tenant() { # slug
  printf '%s' "$PRIVATE_PASSWORD" |
    "$BIN_DIR/mdl-api" tenant create --slug "$1" --name "$1" --admin-email admin@load.example --admin-password-stdin >/dev/null
}

measure_leave() {
  local pid
  for pid in $MEASURE_API $MEASURE_WORKER $MEASURE_FLOOR $MEASURE_PEER; do kill "$pid" 2>/dev/null || true; done
  leave_tests "$1"
}

# Cold start: five times, the median. The last one stays.
measure_start() {
  local run start times=""
  for run in 1 2 3 4 5; do
    start="$(now_milliseconds)"
    measure_serve
    times="$times $(($(now_milliseconds) - start))"
    if [ "$run" != 5 ]; then
      measure_stop "$MEASURE_API"
      MEASURE_API=""
    fi
  done
  COLD_START="$(echo "$times" | tr ' ' '\n' | sed '/^$/d' | sort -n | sed -n 3p)"
  sleep 5
  IDLE_KB="$(resident_kb "$MEASURE_API" VmRSS)"
}

# Starts the API, in place of one that runs, and returns when it has answered.
measure_serve() {
  measure_stop "$MEASURE_API"
  "$BIN_DIR/mdl-api" serve >"$LOGS/measure-api.log" 2>&1 &
  MEASURE_API=$!
  wait_for_answer "http://$MDL_HTTP_ADDR/graphql" "$MEASURE_API" "mdl-api does not start: see $LOGS/measure-api.log."
}

wait_for_answer() { # address process what-if-not
  local deadline=$((SECONDS + 60))
  until curl -fs -m 10 -o /dev/null -H 'content-type: application/json' -d '{"query":"{__typename}"}' "$1"; do
    process_runs "$2" && [ "$SECONDS" -lt "$deadline" ] || die "$3"
  done
}

measure_stop() { # process
  [ -n "$1" ] || return 0
  kill "$1"
  wait "$1" || true
}

measure_import() { # count
  local seconds
  MEASURE_COUNT="$1"
  start_worker
  import_generated demo "$1" metrics
  WORKER_KB="$(resident_kb "$MEASURE_WORKER" VmHWM)"
  seconds="$(psql_as_superuser mdl -Atc "SELECT extract(epoch FROM finished_at - started_at) FROM imports")"
  IMPORT_ROWS="$(psql_as_superuser mdl -Atc 'SELECT created_count FROM imports')"
  [ "$IMPORT_ROWS" = "$1" ] || die "The import created $IMPORT_ROWS of $1 metrics."
  IMPORT_RATE="$(awk -v n="$1" -v s="$seconds" 'BEGIN { printf "%.0f", n / s }')"
  import_generated demo "$1" objectives
  stop_worker
  measure_psql_import "$1"
}

start_worker() {
  "$BIN_DIR/mdl-worker" run >"$LOGS/measure-worker.log" 2>&1 &
  MEASURE_WORKER=$!
}

stop_worker() {
  measure_stop "$MEASURE_WORKER"
  MEASURE_WORKER=""
}

# Entries of a catalog of so many metrics, by a worker that runs.
import_generated() { # tenant count metrics|objectives [how many are there already]
  local file="$INSTANCE/$3.ndjson"
  awk -v count="$2" -v what="$3" -v from="${4:-0}" -f "$ROOT/loadtests/generate.awk" >"$file"
  "$BIN_DIR/mdl-api" import --tenant "$1" --wait "$file" >"$LOGS/measure-import.log" 2>&1 || die "The import failed: see $LOGS/measure-import.log."
  rm -f "$file"
}

# What the import staged, taken back from its versions, into a second tenant: by the same statements, in psql.
measure_psql_import() { # count
  local staged="$INSTANCE/staged" script="$INSTANCE/import.sql" tenant part start size=1000
  tenant="$(psql_as_superuser mdl -Atc "SELECT id FROM tenants WHERE slug = 'psql'")"
  mkdir -p "$staged"
  psql_as_superuser mdl -q -c "INSERT INTO business_domains (tenant_id, id, key, name) SELECT '$tenant', id, key, name FROM business_domains WHERE tenant_id = '$MEASURE_TENANT'"
  psql_as_superuser mdl -q -c "\\copy (SELECT gen_random_uuid(), gen_random_uuid(), m.key, v.document, m.domain_id, v.changed_fields, ARRAY(SELECT upstream_key FROM metric_edges e WHERE e.tenant_id = m.tenant_id AND e.declared_by = m.id), ARRAY(SELECT downstream_key FROM metric_edges e WHERE e.tenant_id = m.tenant_id AND e.declared_by = m.id), m.name, m.short_name, m.description, m.category, m.tier, m.indicator_kind, m.metric_type, m.status, m.tags, m.synonyms, m.formula, m.unit, m.expected_direction, m.owner_team, m.technical_owner, m.business_owner, m.data_classification, m.pii_involved FROM metrics m JOIN metric_versions v ON v.tenant_id = m.tenant_id AND v.metric_id = m.id WHERE m.tenant_id = '$MEASURE_TENANT' ORDER BY m.key) TO '$staged/all'"
  split -l "$size" -a 4 "$staged/all" "$staged/part-"
  {
    echo "SET app.tenant_id = '$tenant';"
    echo "CREATE TEMPORARY TABLE staging (id uuid, event_id uuid, key text, document jsonb, domain_id uuid, changed_fields text[], edge_upstream text[], edge_downstream text[], name text, short_name text, description text, category text, tier text, indicator_kind text, metric_type text, status text, tags text[], synonyms text[], formula text, unit text, expected_direction text, owner_team text, technical_owner text, business_owner text, data_classification text, pii_involved boolean) ON COMMIT DELETE ROWS;"
    for part in "$staged"/part-*; do
      cat <<SQL
BEGIN;
\\copy staging FROM '$part'
INSERT INTO metrics (tenant_id, id, key, name, short_name, description, category, tier, domain_id, indicator_kind, metric_type, status, tags, synonyms, formula, unit, expected_direction, owner_team, technical_owner, business_owner, data_classification, pii_involved, details)
  SELECT '$tenant', id, key, name, short_name, description, category, tier, domain_id, indicator_kind, metric_type, status, tags, synonyms, formula, unit, expected_direction, owner_team, technical_owner, business_owner, data_classification, pii_involved, document -> 'details' FROM staging ORDER BY key ON CONFLICT (tenant_id, key) DO NOTHING;
INSERT INTO metric_versions (tenant_id, metric_id, revision, version_major, version_minor, version_patch, change_tier, changed_fields, document)
  SELECT '$tenant', id, 1, 1, 0, 0, 'initial', changed_fields, document FROM staging;
INSERT INTO metric_edges (tenant_id, declared_by, upstream_key, downstream_key)
  SELECT '$tenant', id, upstream, downstream FROM staging, unnest(edge_upstream, edge_downstream) AS edge (upstream, downstream);
INSERT INTO outbox (tenant_id, id, kind, subject_id, payload)
  SELECT '$tenant', event_id, 'metric.created', id, jsonb_build_object('key', key, 'version', '1.0.0', 'changedFields', to_jsonb(changed_fields)) FROM staging;
COMMIT;
SQL
    done
  } >"$script"
  start="$(now_milliseconds)"
  (
    point_psql_at mdl
    PGUSER=mdl_app exec "$PG_BIN/psql" -X -q -v ON_ERROR_STOP=1 -f "$script"
  ) >"$LOGS/measure-psql.log" 2>&1 || die "psql's import failed: see $LOGS/measure-psql.log."
  PSQL_RATE="$(awk -v n="$1" -v ms="$(($(now_milliseconds) - start))" 'BEGIN { printf "%.0f", n / ms * 1000 }')"
  psql_as_superuser mdl -q -c 'VACUUM ANALYZE'
}

measure_report() {
  echo
  shapes_report
  cat <<REPORT

| figure | measured | wanted |
|---|---|---|
| import of $IMPORT_ROWS metrics, share of psql | $(share "$IMPORT_RATE" "$PSQL_RATE") ($IMPORT_RATE/s of $PSQL_RATE/s) | at least 0.5 |
| worker, greatest resident size | $((WORKER_KB / 1024)) MiB | under 200 MB |
| api, cold start to first answer | $COLD_START ms | under 300 ms |
| api, idle | $((IDLE_KB / 1024)) MiB | under 60 MB |
| api, greatest resident size under the load of the shapes, uncached / cached | $((UNCACHED_KB / 1024)) / $((CACHED_KB / 1024)) MiB | under 150 MB |
REPORT
}

share() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else printf "-" }'; } # of

now_milliseconds() { date +%s%3N; }

resident_kb() { sed -n "s/^$2:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$1/status"; } # pid VmRSS|VmHWM
