# shellcheck shell=bash
# The table of `measure`: five shapes of requests, executed each time and from the response cache, beside pgbench with the statements
# that they send and a bare HTTP server with the bytes that they answer. 64 connections.

SHAPES="q1 q2 q3 q4 q5"
# What Q4 searches for: words that many or few metrics have, each with a tag.
SHAPE_SEARCHES="revenue:active churn:user checkout:session latency:active fraud:user backup:active"
SHAPE_CONNECTIONS=64
GROWN_AT_ONCE=90000   # metrics of one import: files are at most 256 MiB
SHAPE_TOKEN=""
SHAPE_FOLDER="$DEV/measure"   # what was sent, and what came of it, to be looked at afterwards
SHAPE_RESULTS="$SHAPE_FOLDER/results"   # lines: what shape requests seconds ticks-of-the-API

measure_shapes() {
  local shape
  rm -rf "$SHAPE_FOLDER"
  mkdir -p "$SHAPE_FOLDER"
  make_bodies
  say "==> taking the statements of the shapes"
  capture_scripts
  export MDL_CACHE_BYTES=0
  measure_serve
  sign_in_for_shapes
  for shape in $SHAPES; do measure_uncached api pgbench "$shape"; done
  [ -z "$MEASURE_WITH_PEER" ] || measure_peer
  UNCACHED_KB="$(resident_kb "$MEASURE_API" VmHWM)"
  unset MDL_CACHE_BYTES
  measure_serve
  for shape in q1 q2 q3 q4; do measure_cached "$shape"; done
  CACHED_KB="$(resident_kb "$MEASURE_API" VmHWM)"
}

# The shapes whose cost may grow with the catalog, once more with a larger one.
measure_grown() { # count
  local shape next
  say "==> growing to $1 metrics"
  start_worker
  while [ "$MEASURE_COUNT" -lt "$1" ]; do
    next=$((MEASURE_COUNT + GROWN_AT_ONCE))
    [ "$next" -le "$1" ] || next="$1"
    import_generated demo "$next" metrics "$MEASURE_COUNT"
    MEASURE_COUNT="$next"
  done
  stop_worker
  psql_as_superuser mdl -q -c 'VACUUM ANALYZE'
  make_bodies
  export MDL_CACHE_BYTES=0
  measure_serve
  for shape in q1 q2 q4 q5; do measure_uncached api-grown "" "$shape"; done
}

# A file of request bodies for each shape.
make_bodies() {
  local search
  # At most 10,000 keys, from all over the catalog.
  awk -v count="$MEASURE_COUNT" 'BEGIN {
    step = count > 10000 ? count / 10000 : 1
    for (n = 1; n <= count; n += step) printf "{\"key\":\"METRIC-%07d\"}\n", n
  }' | bodies_of q1
  echo '{}' | bodies_of q2
  echo '{}' | bodies_of q3
  for search in $SHAPE_SEARCHES; do
    echo "{\"search\":\"${search%:*}\",\"tag\":\"${search#*:}\"}"
  done | bodies_of q4
  new_metric @UNIQUE@ | bodies_of q5
}

# As long as the generated ones.
new_metric() { # key
  awk -v key="$1" 'BEGIN {
    while (length(prose) < 700) prose = prose "counted once for each customer and day, "
    printf "{\"input\":{\"key\":\"LOAD-%s\",\"name\":\"Load\",\"shortName\":\"load\",\"description\":\"%s\",\"category\":\"KPI\",\"tier\":\"TIER_2\",", key, substr(prose, 1, 300)
    printf "\"domain\":\"Growth\",\"tags\":[\"active\",\"load\"],\"definition\":{\"formula\":\"SUM(a) / COUNT(b)\",\"formulaDetail\":\"%s\",", prose
    printf "\"unit\":\"ratio\",\"numerator\":{\"eventName\":\"a\"},\"denominator\":{\"eventName\":\"b\"}}}}\n"
  }'
}

# Variables, one a line, to bodies.
bodies_of() { # shape
  local document
  document="$(grep -v '^#' "$ROOT/loadtests/shapes/$1.graphql" | tr -s ' \n' '  ')"
  while IFS= read -r variables; do
    printf '{"query":"%s","variables":%s}\n' "$document" "$variables"
  done >"$SHAPE_FOLDER/$1.bodies"
}

# Sends a body from standard input, which must be answered without errors, and prints the answer.
ask_api() {
  local answer
  answer="$(curl -fsS -m 30 -H 'content-type: application/json' -H 'accept: application/graphql-response+json' \
    ${SHAPE_TOKEN:+-H "authorization: Bearer $SHAPE_TOKEN"} --data-binary @- "http://$MDL_HTTP_ADDR/graphql")" || die "A request of the measurement failed: see $LOGS/measure-api.log."
  case "$answer" in
    *'"errors":'*) die "A request of the measurement was answered with errors: $answer" ;;
    *'"userErrors":[{'*) die "A mutation of the measurement was refused: $answer" ;;
  esac
  printf '%s' "$answer"
}

sign_in_for_shapes() {
  local query='mutation($i: SignInInput!) { signIn(input: $i) { session { accessToken } } }'
  SHAPE_TOKEN=""
  SHAPE_TOKEN="$(printf '{"query":"%s","variables":{"i":{"tenant":"demo","email":"admin@load.example","password":"%s"}}}' "$query" "$PRIVATE_PASSWORD" |
    ask_api | sed -n 's/.*"accessToken":"\([^"]*\)".*/\1/p')"
  [ -n "$SHAPE_TOKEN" ] || die "Signing in for the measurement failed."
}

# What each shape sends to PostgreSQL, as scripts for pgbench, from the log of PostgreSQL itself.
capture_scripts() {
  local shape number=0 body
  psql_as_superuser mdl -q -c "ALTER SYSTEM SET log_line_prefix = 'mdl-floor %p '" -c 'SELECT pg_reload_conf()' -c "ALTER ROLE mdl_app SET log_statement = 'all'" >/dev/null
  export MDL_CACHE_BYTES=0
  measure_serve
  sign_in_for_shapes

  for shape in q2 q3; do
    capture "$shape" <"$SHAPE_FOLDER/$shape.bodies"
    floor_script "$shape" "$SHAPE_FOLDER/$shape.log"
  done
  while IFS= read -r body; do
    number=$((number + 1))
    printf '%s' "$body" | capture "q4-$number"
    floor_script "q4-$number" "$SHAPE_FOLDER/q4-$number.log"
  done <"$SHAPE_FOLDER/q4.bodies"
  sed -n 1p "$SHAPE_FOLDER/q1.bodies" | capture q1
  sed -n 2p "$SHAPE_FOLDER/q1.bodies" | capture q1-again
  floor_script q1 "$SHAPE_FOLDER/q1.log" "$SHAPE_FOLDER/q1-again.log" --key METRIC-0000001 \
    --key-expression "'METRIC-' || lpad((:n::bigint % $MEASURE_COUNT + 1)::text, 7, '0')"
  capture q5 <"$SHAPE_FOLDER/q5.bodies"
  capture q5-again <"$SHAPE_FOLDER/q5.bodies"
  floor_script q5 "$SHAPE_FOLDER/q5.log" "$SHAPE_FOLDER/q5-again.log" --key "$(cat "$SHAPE_FOLDER/q5.key")" --key-expression "'FLOOR-' || :n"

  psql_as_superuser mdl -q -c 'ALTER ROLE mdl_app RESET log_statement' -c 'ALTER SYSTEM RESET log_line_prefix' -c 'SELECT pg_reload_conf()' >/dev/null
}

# Sends a body from standard input and keeps what PostgreSQL logged. Once a second the API looks a credential up again beside the
# request: of five requests, the one with the fewest statements is without that.
capture() { # name
  local body from try statements fewest="" log="$SHAPE_FOLDER/$1.log"
  body="$(cat)"
  for try in 1 2 3 4 5; do
    from="$(wc -c <"$LOGS/postgres.log")"
    printf '%s' "${body//@UNIQUE@/$1-$try}" | ask_api >/dev/null
    tail -c "+$((from + 1))" "$LOGS/postgres.log" >"$log.new"
    statements="$(grep -c '^mdl-floor [0-9]* LOG: ' "$log.new" || true)"
    if [ -z "$fewest" ] || [ "$statements" -lt "$fewest" ]; then
      fewest="$statements"
      mv "$log.new" "$log"
      echo "LOAD-$1-$try" >"$SHAPE_FOLDER/$1.key"
    fi
  done
  rm -f "$log.new"
}

floor_script() { # name arguments
  local name="$1"
  shift
  "$BIN_DIR/mdl-floor" pgbench "$@" >"$SHAPE_FOLDER/$name.sql" || die "The statements of $name could not be taken: see above."
}

# In turns, so that whatever else the machine does falls on both.
measure_uncached() { # name-of-results with-pgbench shape
  local created
  say "==> $3, executed each time"
  created="$(created_count)"
  run_wrk "$3" "http://$MDL_HTTP_ADDR/graphql" 2
  for _ in 1 2; do
    run_wrk "$3" "http://$MDL_HTTP_ADDR/graphql" "$MEASURE_SECONDS" "$1"
    [ -z "$2" ] || run_pgbench "$3"
  done
  if [ "$3" = q5 ]; then
    created=$(($(created_count) - created))
    [ "$created" -ge "$(awk -v what="$1" '$1 == what && $2 == "q5" { n += $3 } END { print n + 0 }' "$SHAPE_RESULTS")" ] ||
      die "Fewer metrics were created ($created) than requests answered."
  fi
}

# What the leanest of the GraphQL servers of Node does with the same database, in turns with ours.
measure_peer() {
  local shape address
  address="http://127.0.0.1:$(port_for peer)/graphql"
  (cd "$ROOT/loadtests/peers" && npm ci --no-audit --no-fund) >"$LOGS/measure-peer.log" 2>&1 || die "npm ci failed: see $LOGS/measure-peer.log."
  PORT="$(port_for peer)" DATABASE_POOL_SIZE=16 PGOPTIONS="-c app.tenant_id=$MEASURE_TENANT" \
    node "$ROOT/loadtests/peers/mercurius.js" >"$LOGS/measure-peer.log" 2>&1 &
  MEASURE_PEER=$!
  wait_for_answer "$address" "$MEASURE_PEER" "The peer does not start: see $LOGS/measure-peer.log."
  for shape in q1 q2 q3 q4; do
    say "==> $shape, by a peer"
    run_wrk "$shape" "$address" 2 "" "$MEASURE_PEER"
    for _ in 1 2; do
      run_wrk "$shape" "http://$MDL_HTTP_ADDR/graphql" "$MEASURE_SECONDS" beside-peer
      run_wrk "$shape" "$address" "$MEASURE_SECONDS" peer "$MEASURE_PEER"
    done
  done
  measure_stop "$MEASURE_PEER"
  MEASURE_PEER=""
}

created_count() { psql_as_superuser mdl -Atc "SELECT count(*) FROM metrics WHERE tenant_id = '$MEASURE_TENANT' AND key LIKE 'LOAD-%'"; }

measure_cached() { # shape
  local address
  say "==> $1, from the response cache"
  address="127.0.0.1:$(port_for floor)"
  head -n 1 "$SHAPE_FOLDER/$1.bodies" | ask_api >"$SHAPE_FOLDER/$1.answer"
  "$BIN_DIR/mdl-floor" serve --address "$address" --body "$SHAPE_FOLDER/$1.answer" >"$LOGS/measure-floor.log" 2>&1 &
  MEASURE_FLOOR=$!
  wait_for_answer "http://$address/" "$MEASURE_FLOOR" "mdl-floor does not start: see $LOGS/measure-floor.log."
  # Until nothing is left to be kept: 10,000 keys in random order.
  run_wrk "$1" "http://$MDL_HTTP_ADDR/graphql" "$MEASURE_SECONDS"
  for _ in 1 2; do
    run_wrk "$1" "http://$MDL_HTTP_ADDR/graphql" "$MEASURE_SECONDS" cached
    run_wrk "$1" "http://$address/graphql" "$MEASURE_SECONDS" axum
  done
  measure_stop "$MEASURE_FLOOR"
  MEASURE_FLOOR=""
}

run_wrk() { # shape address seconds [name-of-results] [process, if not the API]
  local log="$LOGS/measure-wrk.log" process="${5:-$MEASURE_API}" before after
  before="$(ticks_of "$process")"
  wrk -t2 -c"$SHAPE_CONNECTIONS" -d"${3}s" --timeout 10s -s "$ROOT/loadtests/wrk.lua" "$2" -- "$SHAPE_FOLDER/$1.bodies" "$SHAPE_TOKEN" >"$log" 2>&1 ||
    die "wrk failed: see $log."
  after="$(ticks_of "$process")"
  ! grep -qE 'Non-2xx|Socket errors' "$log" || die "Some requests failed: see $log."
  # A line such as "  81234 requests in 8.01s, 95.12MB read".
  [ -z "${4:-}" ] || awk -v what="$4" -v shape="$1" -v ticks="$((after - before))" \
    '/ requests in / { sub(/s,$/, "", $4); if ($4 ~ /m,$/) $4 *= 60; print what, shape, $1, $4, ticks }' "$log" >>"$SHAPE_RESULTS"
}

run_pgbench() { # shape
  local log="$LOGS/measure-pgbench.log" files="" file
  for file in "$SHAPE_FOLDER/$1.sql" "$SHAPE_FOLDER/$1"-[0-9].sql; do
    [ ! -f "$file" ] || files="$files -f $file"
  done
  # shellcheck disable=SC2086  # several arguments, without spaces in them
  (
    point_psql_at mdl
    PGUSER=mdl_app exec "$PG_BIN/pgbench" -n -M prepared -c "$SHAPE_CONNECTIONS" -j 2 -T "$MEASURE_SECONDS" $files
  ) >"$log" 2>&1 || die "pgbench failed: see $log."
  ! grep -q 'aborted' "$log" || die "pgbench failed: see $log."
  # Its connections are made within this time.
  grep -q '^tps = ' "$log" || die "pgbench did nothing in $MEASURE_SECONDS s: --seconds is to be longer."
  awk -v shape="$1" -v seconds="$MEASURE_SECONDS" '/^tps = / { print "pgbench", shape, $3 * seconds, seconds, 0 }' "$log" >>"$SHAPE_RESULTS"
}

# Processor time of a process so far, in ticks: user and system, all threads.
ticks_of() { sed 's/.*) //' "/proc/$1/stat" | awk '{ print $12 + $13 }'; }

shapes_report() {
  awk -v hertz="$(getconf CLK_TCK)" '
    { requests[$1, $2] += $3; seconds[$1, $2] += $4; ticks[$1, $2] += $5 }
    function rate(what, shape) { return seconds[what, shape] ? requests[what, shape] / seconds[what, shape] : 0 }
    function of(a, b) { return b ? sprintf("%.2f", a / b) : "-" }
    function row(shape, title, share, processor, cached,    api) {
      api = rate("api", shape)
      printf "| %s | %.0f/s of %.0f/s: %s | %s | %.0f µs | %d µs |", title, api, rate("pgbench", shape), of(api, rate("pgbench", shape)), share, cost("api", shape), processor
      if (cached) printf " %.0f/s of %.0f/s: %s | 0.80 |\n", rate("cached", shape), rate("axum", shape), of(rate("cached", shape), rate("axum", shape))
      else printf " | |\n"
    }
    function cost(what, shape) { return requests[what, shape] ? ticks[what, shape] / hertz * 1000000 / requests[what, shape] : 0 }
    function beside(shape, title) {
      printf "| %s | %.0f/s, %.0f/s | %s | %.0f µs, %.0f µs | %s |\n", title, rate("beside-peer", shape), rate("peer", shape), of(rate("beside-peer", shape), rate("peer", shape)), cost("beside-peer", shape), cost("peer", shape), of(cost("beside-peer", shape), cost("peer", shape))
    }
    function growth(shape, title, most) {
      if (seconds["api-grown", shape]) printf "| %s | %.0f/s, %.0f/s before | %s | %s |\n", title, rate("api-grown", shape), rate("api", shape), of(rate("api", shape), rate("api-grown", shape)), most
    }
    END {
      print "| shape | executed, share of pgbench | wanted | api processor time per request | wanted | cached, share of a bare axum handler | wanted |"
      print "|---|---|---|---|---|---|---|"
      row("q1", "Q1 one metric, 12 fields", "0.45", 41, 1)
      row("q2", "Q2 50 metrics with their domain", "0.50", 146, 1)
      row("q3", "Q3 objectives, key results, metrics, domain", "0.50", 477, 1)
      row("q4", "Q4 tier, tag and search, first 20", "0.70", 79, 1)
      row("q5", "Q5 create a metric", "0.50", 89, 0)
      if (seconds["peer", "q1"]) {
        print "\n| shape | executed, Mercurius | times as fast | processor time, of Mercurius | share |"
        print "|---|---|---|---|---|"
        beside("q1", "Q1")
        beside("q2", "Q2")
        beside("q3", "Q3")
        beside("q4", "Q4")
      }
      if (!seconds["api-grown", "q1"]) exit
      print "\n| shape, grown | executed | times slower | wanted |\n|---|---|---|---|"
      growth("q1", "Q1", "1.3")
      growth("q2", "Q2", "1.3")
      growth("q4", "Q4", "2.0")
      growth("q5", "Q5", "1.3")
    }' "$SHAPE_RESULTS"
}
