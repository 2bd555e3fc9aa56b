# NDJSON of metrics with realistic, differing texts, about 1.6 kB each: awk -v count=100000 -f generate.awk
function words(n, seed,    text, i) {
  text = ""
  for (i = 0; i < n; i++) {
    seed = (seed * 7919 + 104729) % 2147483647
    text = text (i ? " " : "") word[seed % 24]
  }
  return text
}
BEGIN {
  split("active user session revenue churn retention order customer trial invoice latency error request weekly monthly cohort segment region plan upgrade refund ticket score window", list, " ")
  for (i = 1; i <= 24; i++) word[i - 1] = list[i]
  split("KPI Finance Retention Growth Performance Engineering", category, " ")
  split("Growth,Product,Revenue,Support,Sales,Platform,Engineering,Data", domain, ",")
  for (n = 1; n <= count; n++) {
    printf "{\"metric_id\":\"METRIC-%06d\",\"name\":\"%s %d\",\"short_name\":\"m_%06d\",\"description\":\"%s\",", n, words(3, n), n, n, words(24, n * 3)
    printf "\"category\":\"%s\",\"tier\":\"Tier-%d\",\"business_domain\":\"%s\",\"metric_type\":\"ratio\",\"indicator_kind\":\"leading\",", category[n % 6 + 1], n % 3 + 1, domain[n % 8 + 1]
    printf "\"tags\":[\"%s\",\"%s\"],", words(1, n * 5), words(1, n * 11)
    printf "\"alignment\":{\"strategic_pillar\":\"%s\",\"why_it_matters\":\"%s\"},", words(2, n), words(8, n * 13)
    printf "\"definition\":{\"formula\":\"SUM(%s) / COUNT(%s)\",\"formula_detail\":\"%s\",\"numerator\":{\"event_name\":\"%s\",\"filters\":[{\"field\":\"status\",\"operator\":\"eq\",\"value\":\"active\"}]},\"denominator\":{\"event_name\":\"%s\",\"filters\":[]},\"unit\":\"ratio\",\"expected_direction\":\"increase\"},", words(1, n), words(1, n * 2), words(10, n * 17), words(1, n * 3), words(1, n * 4)
    printf "\"data\":{\"primary_sources\":[{\"system\":\"warehouse\",\"table_or_stream\":\"events_%d\",\"connection_id\":\"main\"}],\"data_freshness\":\"daily\",\"update_frequency\":\"daily\",\"time_grain\":[\"day\",\"week\",\"month\"]},", n % 50
    printf "\"governance\":{\"data_classification\":\"internal\",\"pii_involved\":false,\"owner_team\":\"Team %d\",\"technical_owner\":\"data\",\"business_owner\":\"Head of %s\",\"status\":\"active\"},", n % 40, domain[n % 8 + 1]
    printf "\"dimensions\":[{\"name\":\"region\",\"allowed_values\":[\"emea\",\"apac\",\"amer\"],\"required\":true},{\"name\":\"plan\",\"allowed_values\":[],\"required\":false}],"
    printf "\"targets_and_alerts\":{\"target_value\":%d,\"warning_threshold\":%d,\"critical_threshold\":%d},", n % 100, n % 90, n % 80
    printf "\"relationships\":{\"upstream_metric_ids\":[\"METRIC-%06d\"]},", (n * 31) % count + 1
    printf "\"metadata\":{\"notes\":\"%s\",\"example_queries\":[{\"language\":\"sql\",\"query\":\"SELECT %s FROM %s WHERE day > current_date - 30\"}]}}\n", words(6, n * 19), words(1, n), words(1, n * 7)
  }
}
