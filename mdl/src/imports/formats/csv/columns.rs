//! The columns of a CSV file: which there are, what their cells hold, and what a header that names others is told.

use csv::ByteRecord;

use super::super::super::entry::{Issue, Place, codes};
use super::super::super::value::{Map, Value};
use super::super::strict::Strict;

/// What a cell holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    Text,
    Number,
    /// `true` or `false`.
    Flag,
    /// Items separated by `;`, or a JSON array.
    List,
    /// A list whose items are `system:table`.
    Sources,
    /// JSON.
    Json,
}

/// The columns that a file may have, in the order of the template: name, content, meaning. Only `metric_id` must be there.
pub const COLUMNS: &[(&str, Cells, &str)] = &[
    ("metric_id", Cells::Text, "The key"),
    ("name", Cells::Text, "What people call it"),
    ("short_name", Cells::Text, "As a program would call it"),
    ("description", Cells::Text, "What it says, in prose"),
    ("category", Cells::Text, "KPI, Finance, Retention, …"),
    ("tier", Cells::Text, "tier_1, tier_2 or tier_3"),
    ("business_domain", Cells::Text, "Key or name of its domain"),
    ("indicator_kind", Cells::Text, "leading, lagging or operational"),
    ("metric_type", Cells::Text, "simple, ratio, derived, cumulative or conversion"),
    ("tags", Cells::List, "Words to find it by"),
    ("synonyms", Cells::List, "Other names"),
    ("alignment.strategic_pillar", Cells::Text, "The strategy it serves"),
    ("alignment.primary_objective_ids", Cells::List, "Keys of objectives"),
    ("alignment.related_okr_ids", Cells::List, "Key results as OBJECTIVE:KEY-RESULT"),
    ("alignment.why_it_matters", Cells::Text, "Why the company keeps it"),
    ("definition.formula", Cells::Text, "How it is computed"),
    ("definition.formula_detail", Cells::Text, "The computation in prose"),
    ("definition.numerator.event_name", Cells::Text, "What is counted"),
    ("definition.numerator.filters", Cells::Json, "[{\"field\", \"operator\", \"value\"}]"),
    ("definition.denominator.event_name", Cells::Text, "What it is divided by"),
    ("definition.denominator.filters", Cells::Json, "[{\"field\", \"operator\", \"value\"}]"),
    ("definition.unit", Cells::Text, "percentage, USD, seconds, …"),
    ("definition.expected_direction", Cells::Text, "increase, decrease or stable"),
    ("definition.example_calculation", Cells::Json, "{\"input\": 1, \"result\": 1}"),
    ("data.primary_sources", Cells::Sources, "system:table"),
    ("data.secondary_sources", Cells::Sources, "system:table"),
    ("data.data_freshness", Cells::Text, "How old the data may be"),
    ("data.update_frequency", Cells::Text, "How often it is loaded"),
    ("data.time_grain", Cells::List, "hour, day, week, …"),
    ("data.data_retention", Cells::Text, "How long it is kept"),
    ("governance.data_classification", Cells::Text, "internal, confidential, …"),
    ("governance.pii_involved", Cells::Flag, "Whether personal data goes in"),
    ("governance.regulatory_constraints", Cells::List, "sox, gdpr, …"),
    ("governance.owner_team", Cells::Text, "Who answers for it"),
    ("governance.technical_owner", Cells::Text, "Who builds it"),
    ("governance.business_owner", Cells::Text, "Who decides on it"),
    ("governance.version", Cells::Text, "First version of a new metric, such as 1.4.0"),
    ("governance.status", Cells::Text, "draft, in_review, active, deprecated or removed"),
    ("dimensions", Cells::List, "Names, or JSON objects with name, description, allowed_values, required"),
    ("targets_and_alerts.target_value", Cells::Number, "What it should be"),
    ("targets_and_alerts.warning_threshold", Cells::Number, ""),
    ("targets_and_alerts.critical_threshold", Cells::Number, ""),
    ("targets_and_alerts.comparison_baseline", Cells::Text, "What it is compared with"),
    ("targets_and_alerts.alert_rules", Cells::Json, "[{\"rule_id\", \"condition\", \"severity\", \"notify_channels\"}]"),
    ("visualization.default_chart_type", Cells::Text, "line, bar, …"),
    ("visualization.default_time_range", Cells::Text, "last_30_days, …"),
    ("visualization.dashboard_locations", Cells::Json, "[{\"tool\", \"url\"}]"),
    ("visualization.drilldowns", Cells::List, "Dimensions that charts break down by"),
    ("relationships.upstream_metric_ids", Cells::List, "What it is computed from"),
    ("relationships.downstream_metric_ids", Cells::List, "What is computed from it"),
    ("relationships.tradeoffs", Cells::List, "What suffers when it improves"),
    ("operational_usage.decision_use_cases", Cells::List, "What is decided with it"),
    ("operational_usage.review_cadence", Cells::Text, "daily, weekly, …"),
    ("operational_usage.linked_playbooks", Cells::Json, "[{\"name\", \"url\"}]"),
    ("metadata.notes", Cells::Text, "Anything else"),
    ("metadata.example_queries", Cells::Json, "[{\"language\", \"query\"}]"),
];

/// Columns under this prefix are kept with the metric as they are.
const EXTRA: &str = "extra.";
/// A file with all columns and one example row, to start from.
pub fn csv_template() -> String {
    let header: Vec<&str> = COLUMNS.iter().map(|(name, ..)| *name).collect();
    let example = |name: &str| match name {
        "metric_id" => "METRIC-LOGIN-SUCCESS-RATE",
        "name" => "Login Success Rate",
        "description" => "Share of login attempts that succeed",
        "tier" => "tier_1",
        "business_domain" => "Digital Experience",
        "metric_type" => "ratio",
        "tags" => "authentication;security",
        "definition.formula" => "successful_logins / login_attempts",
        "definition.unit" => "ratio",
        "definition.expected_direction" => "increase",
        "data.primary_sources" => "warehouse:events_logins",
        "data.time_grain" => "hour;day;week",
        "governance.status" => "active",
        _ => "",
    };
    let row: Vec<&str> = header.iter().map(|name| example(name)).collect();
    format!("{}\n{}\n", header.join(","), row.join(","))
}

/// A column of the file at hand.
pub struct Column {
    pub path: Vec<String>,
    pub cells: Cells,
}

impl Column {
    /// Puts a value where the column's dotted name says.
    pub fn put(&self, row: &mut Map, value: Value) {
        let Some((last, parents)) = self.path.split_last() else { return };
        let mut map = row;
        for name in parents {
            let inner = map.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(inner) = inner else { return };
            map = inner;
        }
        map.insert(last.clone(), value);
    }
}

impl Cells {
    /// What a cell that is not blank says.
    pub fn value(self, cell: &str) -> Result<Value, &'static str> {
        let text = cell.trim();
        match self {
            Cells::Text | Cells::Number | Cells::Flag => Ok(Value::String(cell.to_owned())),
            Cells::Json => json(text).ok_or("Must be JSON, with no field twice"),
            Cells::List | Cells::Sources if text.starts_with('[') => json(text).ok_or("Begins like a JSON list but is none"),
            Cells::List => Ok(Value::Array(items(text).map(string).collect())),
            Cells::Sources => Ok(Value::Array(items(text).map(source).collect())),
        }
    }
}

fn json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().map(|Strict(value)| value)
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn source(item: &str) -> Value {
    let (system, table) = item.split_once(':').unwrap_or((item, ""));
    Value::Object(Map::from([("system".to_owned(), string(system)), ("table_or_stream".to_owned(), string(table))]))
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|item| !item.is_empty())
}

/// The columns that a header names.
pub fn columns(header: &ByteRecord) -> Result<Vec<Column>, Box<Issue>> {
    let refuse = |code, message| Err(Issue::refusal(Place::line(1), code, message));
    let mut columns = Vec::new();
    let mut has_key = false;
    for name in header {
        let shown = String::from_utf8_lossy(name).into_owned();
        let name = shown.to_lowercase().replace(' ', "_");
        let name = if name == "key" { "metric_id".to_owned() } else { name };
        has_key |= name == "metric_id";
        let cells = match COLUMNS.iter().find(|(known, ..)| *known == name) {
            Some((_, cells, _)) => *cells,
            // Under its own name in the extra fields: no column of ours begins so.
            None if name.starts_with(EXTRA) && name.len() > EXTRA.len() => Cells::Text,
            None => {
                let hint = match nearest(&name) {
                    Some(known) => format!("did you mean {known:?}? "),
                    None => String::new(),
                };
                return refuse(
                    codes::UNKNOWN_FIELD,
                    format!(
                        "There is no column {shown:?}: {hint}The template lists the columns; begin the name with {EXTRA:?} to keep it as it is"
                    ),
                );
            }
        };
        let path: Vec<String> = match name.strip_prefix(EXTRA) {
            Some(own) => vec![own.to_owned()],
            None => name.split('.').map(str::to_owned).collect(),
        };
        if columns.iter().any(|column: &Column| column.path == path) {
            return refuse(codes::DUPLICATE, format!("The column {shown:?} is there twice"));
        }
        columns.push(Column { path, cells });
    }
    if !has_key {
        return refuse("REQUIRED", "There is no column metric_id; the first line must name the columns".to_owned());
    }
    Ok(columns)
}

/// The column that somebody meant who left out its section, or misspelt it a little.
fn nearest(name: &str) -> Option<&'static str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    COLUMNS.iter().map(|(known, ..)| *known).find(|known| last(known) == last(name)).or_else(|| {
        COLUMNS
            .iter()
            .map(|(known, ..)| *known)
            .filter(|known| distance(known, name) <= 2)
            .min_by_key(|known| distance(known, name))
    })
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}
