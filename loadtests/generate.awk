# A catalog of any size as NDJSON, the same each time, with realistic, differing texts:
#
#   awk -v count=100000 -f generate.awk                      metrics of about 2.5 kB: 300 characters of description, 1 kB of definition
#   awk -v count=100000 -v what=objectives -f generate.awk   one objective for 50 of these metrics, 20 at least, each with four
#                                                            key results of two metrics
#
# With `-v from=…` the first so many metrics are left out. Words come as often as in prose: the first of the list is in almost
# every description, the last in one of twenty-five.
function words(n, seed,    text, i) {
  text = ""
  seed = scattered(seed)
  for (i = 0; i < n; i++) {
    seed = next_random(seed)
    text = text (i ? " " : "") word[1 + int(exp(seed / 2147483647 * log(vocabulary_size + 1)) - 1)]
  }
  return text
}
function prose(length_wanted, seed) { return substr(words(length_wanted / 4, seed), 1, length_wanted) }
function next_random(seed) { return seed * 48271 % 2147483647 }
# Neighbouring numbers are to begin differently.
function scattered(n) { return next_random(next_random(n % 2147483647 + 7919)) }

function metric(n) {
  printf "{\"metric_id\":\"METRIC-%07d\",\"name\":\"%s %d\",\"short_name\":\"m_%07d\",\"description\":\"%s\",", n, words(3, n), n, n, prose(300, n * 3)
  printf "\"category\":\"%s\",\"tier\":\"Tier-%d\",\"business_domain\":\"%s\",\"metric_type\":\"ratio\",\"indicator_kind\":\"leading\",", category[n % 6 + 1], n % 3 + 1, domain[n % 8 + 1]
  printf "\"tags\":[\"%s\",\"%s\"],", words(1, n * 5), words(1, n * 11)
  printf "\"alignment\":{\"strategic_pillar\":\"%s\",\"why_it_matters\":\"%s\"},", words(2, n), words(8, n * 13)
  printf "\"definition\":{\"formula\":\"SUM(%s) / COUNT(%s)\",\"formula_detail\":\"%s\",\"numerator\":{\"event_name\":\"%s\",\"filters\":[{\"field\":\"status\",\"operator\":\"eq\",\"value\":\"active\"}]},\"denominator\":{\"event_name\":\"%s\",\"filters\":[]},\"unit\":\"ratio\",\"expected_direction\":\"increase\"},", words(1, n), words(1, n * 2), prose(730, n * 17), words(1, n * 3), words(1, n * 4)
  printf "\"data\":{\"primary_sources\":[{\"system\":\"warehouse\",\"table_or_stream\":\"events_%d\",\"connection_id\":\"main\"}],\"data_freshness\":\"daily\",\"update_frequency\":\"daily\",\"time_grain\":[\"day\",\"week\",\"month\"]},", n % 50
  printf "\"governance\":{\"data_classification\":\"internal\",\"pii_involved\":false,\"owner_team\":\"Team %d\",\"technical_owner\":\"data\",\"business_owner\":\"Head of %s\",\"status\":\"active\"},", n % 40, domain[n % 8 + 1]
  printf "\"dimensions\":[{\"name\":\"region\",\"allowed_values\":[\"emea\",\"apac\",\"amer\"],\"required\":true},{\"name\":\"plan\",\"allowed_values\":[],\"required\":false}],"
  printf "\"targets_and_alerts\":{\"target_value\":%d,\"warning_threshold\":%d,\"critical_threshold\":%d},", n % 100, n % 90, n % 80
  printf "\"relationships\":{\"upstream_metric_ids\":[\"METRIC-%07d\"]},", (n * 31) % count + 1
  printf "\"metadata\":{\"notes\":\"%s\",\"example_queries\":[{\"language\":\"sql\",\"query\":\"SELECT %s FROM %s WHERE day > current_date - 30\"}]}}\n", words(6, n * 19), words(1, n), words(1, n * 7)
}

function objective(n,    k, at) {
  printf "{\"objective_id\":\"OBJ-%05d\",\"name\":\"%s %d\",\"description\":\"%s\",\"timeframe\":{\"start\":\"2026-01-01\",\"end\":\"2026-12-31\"},", n, words(4, n), n, prose(200, n * 23)
  printf "\"owner\":\"Head of %s\",\"status\":\"active\",\"business_domain\":\"%s\",\"key_results\":[", domain[n % 8 + 1], domain[n % 8 + 1]
  for (k = 1; k <= 4; k++) {
    at = n * 8 + k * 2
    printf "%s{\"kr_id\":\"KR-%d\",\"name\":\"%s\",\"baseline_value\":%d,\"target_value\":%d,\"current_value\":%d,\"unit\":\"percentage\",\"direction\":\"increase\",", (k > 1 ? "," : ""), k, words(5, n * 29 + k), n % 30, 60 + n % 40, 30 + n % 30
    printf "\"metric_ids\":[\"METRIC-%07d\",\"METRIC-%07d\"]}", at % count + 1, (at + 1) % count + 1
  }
  printf "]}\n"
}

BEGIN {
  vocabulary = "active user session revenue order customer metric rate weekly monthly total average count daily trial plan " \
    "region segment product team churn retention cohort conversion signup login activation engagement invoice " \
    "payment refund subscription upgrade downgrade renewal billing checkout cart latency error request response " \
    "timeout uptime incident deploy release rollback pipeline warehouse table event stream batch schema freshness " \
    "quality support ticket score survey feedback agent queue backlog resolution escalation satisfaction loyalty " \
    "referral campaign channel click impression email visit bounce scroll search ranking recommendation listing " \
    "seller buyer inventory shipment delivery return supplier margin discount coupon price cost forecast target " \
    "budget variance quarter annual baseline threshold alert owner steward consent privacy fraud dispute chargeback " \
    "compliance audit mobile desktop tablet browser device notification push onboarding tutorial feature experiment " \
    "variant holdout uplift window funnel step completion storage bandwidth cpu memory cluster replica failover " \
    "backup restore shard partition cache hit miss throughput saturation"
  vocabulary_size = split(vocabulary, word, " ")
  split("KPI Finance Retention Growth Performance Engineering", category, " ")
  split("Growth,Product,Revenue,Support,Sales,Platform,Engineering,Data", domain, ",")
  if (what == "objectives") {
    for (n = 1; n <= count / 50 || n <= 20; n++) objective(n)
  } else {
    for (n = from + 1; n <= count; n++) metric(n)
  }
}
