# shellcheck shell=bash
# `measure`: speed and memory of the release build, as shares of what PostgreSQL's own tools reach. loadtests/README.md explains.

MEASURE_TENANT=""   # id of the tenant that the load reads
MEASURE_PIDS=""     # programs to stop in the end

measure() {
  local count="${1:-100000}" list_share import_share
  require_cargo
  have wrk || install_packages wrk wrk wrk wrk || die "$INSTALL_PROBLEM"
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
  export DATABASE_URL DATABASE_OWNER_URL REDIS_URL MDL_STORAGE_URL MDL_SIGNING_KEY_FILE MDL_HTTP_ADDR MDL_OPS_ADDR MDL_WORKER_OPS_ADDR
  # Every request is executed; measure_cached turns the response cache on.
  MDL_CACHE_BYTES=0
  export MDL_RATE_LIMIT_PER_SECOND MDL_RATE_LIMIT_BURST MDL_CACHE_BYTES
  "$BIN_DIR/mdl-api" keygen >"$MDL_SIGNING_KEY_FILE"
  "$BIN_DIR/mdl-api" migrate >/dev/null
  printf '%s' "$PRIVATE_PASSWORD" | "$BIN_DIR/mdl-api" tenant create --slug demo --name Demo --admin-email admin@demo.example --admin-password-stdin >/dev/null
  psql_as_superuser mdl -q -c "INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), 'psql', 'psql')"
  MEASURE_TENANT="$(psql_as_superuser mdl -Atc "SELECT id FROM tenants WHERE slug = 'demo'")"

  measure_start
  measure_import "$count"
  measure_list
  measure_cached
  measure_report
}

measure_leave() {
  local pid
  for pid in $MEASURE_PIDS; do kill "$pid" 2>/dev/null || true; done
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
      kill "$MEASURE_API"
      wait "$MEASURE_API" || true
    fi
  done
  COLD_START="$(echo "$times" | tr ' ' '\n' | sed '/^$/d' | sort -n | sed -n 3p)"
  sleep 5
  IDLE_KB="$(resident_kb "$MEASURE_API" VmRSS)"
}

# Starts the API, and returns when it has answered.
measure_serve() {
  "$BIN_DIR/mdl-api" serve >"$LOGS/measure-api.log" 2>&1 &
  MEASURE_API=$!
  MEASURE_PIDS="$MEASURE_API"
  until curl -fs -o /dev/null -H 'content-type: application/json' -d '{"query":"{__typename}"}' "http://$MDL_HTTP_ADDR/graphql"; do
    kill -0 "$MEASURE_API" 2>/dev/null || die "mdl-api does not start: see $LOGS/measure-api.log."
  done
}

measure_import() { # count
  local file="$INSTANCE/metrics.ndjson" worker seconds
  awk -v count="$1" -f "$ROOT/loadtests/generate.awk" >"$file"
  "$BIN_DIR/mdl-worker" run >"$LOGS/measure-worker.log" 2>&1 &
  worker=$!
  MEASURE_PIDS="$MEASURE_PIDS $worker"
  "$BIN_DIR/mdl-api" import --tenant demo --wait "$file" >"$LOGS/measure-import.log" 2>&1 || die "The import failed: see $LOGS/measure-import.log."
  WORKER_KB="$(resident_kb "$worker" VmHWM)"
  seconds="$(psql_as_superuser mdl -Atc "SELECT extract(epoch FROM finished_at - started_at) FROM imports")"
  IMPORT_ROWS="$(psql_as_superuser mdl -Atc 'SELECT created_count FROM imports')"
  [ "$IMPORT_ROWS" = "$1" ] || die "The import created $IMPORT_ROWS of $1 metrics."
  IMPORT_RATE="$(awk -v n="$1" -v s="$seconds" 'BEGIN { printf "%.0f", n / s }')"
  kill "$worker"
  wait "$worker" || true
  MEASURE_PIDS="${MEASURE_PIDS% *}"
  measure_psql_import "$1"
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

# A page of 50 metrics with their domain: through the API, and the same statements by pgbench.
measure_list() {
  local token sql="$INSTANCE/list.sql" ids
  token="$(curl -fs -H 'content-type: application/json' "http://$MDL_HTTP_ADDR/graphql" -d "{\"query\":\"mutation(\$i: SignInInput!) { signIn(input: \$i) { session { accessToken } } }\",\"variables\":{\"i\":{\"tenant\":\"demo\",\"email\":\"admin@demo.example\",\"password\":\"$PRIVATE_PASSWORD\"}}}" | sed -n 's/.*"accessToken":"\([^"]*\)".*/\1/p')"
  cat >"$INSTANCE/list.lua" <<LUA
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer $token"
wrk.body = '{"query":"{ metrics(first: 50) { nodes { id key name description tier status category updatedAt domain { name } } } }"}'
LUA
  ids="$(psql_as_superuser mdl -Atc "SELECT string_agg(DISTINCT quote_literal(domain_id), ',') FROM (SELECT domain_id FROM metrics WHERE tenant_id = '$MEASURE_TENANT' AND archived_at IS NULL ORDER BY key LIMIT 50) page")"
  cat >"$sql" <<SQL
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL app.tenant_id = '$MEASURE_TENANT';
SELECT tenant_id, id, key, name, short_name, description, category, tier, domain_id, indicator_kind, metric_type, status, tags, synonyms, formula, unit, expected_direction, owner_team, technical_owner, business_owner, data_classification, pii_involved, version_major, version_minor, version_patch, revision, created_at, created_by, updated_at, updated_by, archived_at, NULL::jsonb FROM metrics WHERE tenant_id = '$MEASURE_TENANT' AND archived_at IS NULL ORDER BY key LIMIT 51;
SELECT tenant_id, id, key, name, description, owner_team, stakeholders, industry, priority, objective_keys, key_metric_keys, extra, implied, revision, created_at, created_by, updated_at, updated_by, archived_at FROM business_domains WHERE tenant_id = '$MEASURE_TENANT' AND id = ANY (ARRAY[$ids]::uuid[]);
COMMIT;
SQL
  LIST_RATE="$(measure_wrk)"
  PGBENCH_RATE="$(
    point_psql_at mdl
    PGUSER=mdl_app "$PG_BIN/pgbench" -n -M prepared -c 16 -j 2 -T 15 -f "$sql" 2>/dev/null | sed -n 's/^tps = \([0-9.]*\).*/\1/p'
  )"
}

# The same list when its answer is kept.
measure_cached() {
  kill "$MEASURE_API"
  wait "$MEASURE_API" || true
  unset MDL_CACHE_BYTES
  measure_serve
  CACHED_RATE="$(measure_wrk)"
}

# Requests per second of the page of 50.
measure_wrk() {
  local address="http://$MDL_HTTP_ADDR/graphql"
  wrk -t2 -c16 -d5s -s "$INSTANCE/list.lua" "$address" >/dev/null
  wrk -t2 -c16 -d15s -s "$INSTANCE/list.lua" "$address" >"$LOGS/measure-wrk.log"
  ! grep -q 'Non-2xx' "$LOGS/measure-wrk.log" || die "Some requests failed: see $LOGS/measure-wrk.log."
  sed -n 's/^Requests\/sec: *\([0-9.]*\)/\1/p' "$LOGS/measure-wrk.log"
}

measure_report() {
  import_share="$(awk -v a="$IMPORT_RATE" -v b="$PSQL_RATE" 'BEGIN { printf "%.2f", a / b }')"
  list_share="$(awk -v a="$LIST_RATE" -v b="$PGBENCH_RATE" 'BEGIN { printf "%.2f", a / b }')"
  cat <<REPORT

| figure | measured | wanted |
|---|---|---|
| import of $IMPORT_ROWS metrics, share of psql | $import_share ($IMPORT_RATE/s of $PSQL_RATE/s) | at least 0.5 |
| worker, greatest resident size | $((WORKER_KB / 1024)) MiB | under 200 MB |
| list of 50 metrics with their domain, share of pgbench | $list_share ($LIST_RATE/s of $PGBENCH_RATE/s) | at least 0.4 |
| the same list from the response cache | $(awk -v a="$CACHED_RATE" -v b="$LIST_RATE" 'BEGIN { printf "%.1f", a / b }') times as many ($CACHED_RATE/s) | |
| api, cold start to first answer | $COLD_START ms | under 300 ms |
| api, idle | $((IDLE_KB / 1024)) MiB | under 60 MB |
REPORT
}

now_milliseconds() { date +%s%3N; }

resident_kb() { sed -n "s/^$2:[^0-9]*\([0-9]*\) kB/\1/p" "/proc/$1/status"; } # pid VmRSS|VmHWM
