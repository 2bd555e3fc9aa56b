//! Mozilla's metric-hub definitions: a TOML file of one product, with tables of metrics and of the data sources they read.
//! See <https://mozilla.github.io/metric-hub/>.

use std::collections::HashMap;

use toml::de::{DeTable, DeValue};

use super::super::draft::{self, Fields};
use super::super::entry::{DomainLabel, Draft, Issue, Kind, MetricDraft, Place, codes};
use super::super::input::Halt;
use super::super::reader::Sink;
use super::super::value::{Map, Value};
use crate::metrics::definition::{Definition, Direction, MetricType, Source, Status, Tier};

/// The tables of the format. Only metrics become entries; data sources are told with the metrics that read them.
const TABLES: &[&str] = &["metrics", "data_sources", "dimensions", "segments", "functions", "outcomes", "statistics"];
const LEVELS: &[(&str, Tier)] = &[("gold", Tier::Tier1), ("silver", Tier::Tier2), ("bronze", Tier::Tier3)];

/// Reads a file. Its metrics get keys in `namespace`, the product's name.
pub fn read(text: &str, namespace: Option<&str>, sink: &mut Sink) -> Result<(), Halt> {
    let lines = Lines::of(text);
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| lines.at(span.start));
        let code = match error.span() {
            Some(span) if text[span.start.min(text.len())..].trim().is_empty() => codes::TRUNCATED,
            _ if error.message().contains("recursion") => codes::TOO_COMPLEX,
            _ => codes::SYNTAX,
        };
        Issue::refusal(Place::line(line), code, format!("Cannot be read as TOML: {}, line {line}", error.message()))
    })?;
    let document = document.into_inner();
    if !document.iter().any(|(name, _)| TABLES.contains(&name.get_ref().as_ref())) {
        let message = "Has none of metric-hub's tables (metrics, data_sources, dimensions, segments, functions)";
        return Err(Issue::refusal(Place::line(1), codes::UNKNOWN_KIND, message).into());
    }
    let Some(namespace) = namespace else {
        let message =
            "metric-hub's metrics need a namespace: name it, or give the file its product's name, such as firefox_desktop.toml";
        return Err(Issue::refusal(Place::default(), "REQUIRED", message).into());
    };
    for (name, _) in document.iter().filter(|(name, _)| !TABLES.contains(&name.get_ref().as_ref())) {
        let place = Place { line: Some(lines.at(name.span().start)), path: Some(name.get_ref().to_string()) };
        sink.warn(place, codes::UNKNOWN_FIELD, "Not a table of metric-hub; it is left out", None);
    }

    let table =
        |name: &str| document.iter().find(|(key, _)| key.get_ref() == name).and_then(|(_, value)| value.get_ref().as_table());
    let sources: HashMap<&str, String> = table("data_sources")
        .into_iter()
        .flat_map(|sources| sources.iter())
        .filter_map(|(slug, source)| {
            let from = source.get_ref().as_table()?.iter().find(|(key, _)| key.get_ref() == "from_expression")?.1.get_ref();
            Some((slug.get_ref().as_ref(), dedent(from.as_str()?)))
        })
        .collect();
    let mut metrics: Vec<_> = table("metrics").into_iter().flat_map(|metrics| metrics.iter()).collect();
    metrics.sort_by_key(|(slug, _)| slug.span().start);
    for (slug, content) in metrics {
        let slug = slug.get_ref().as_ref();
        let at = lines.at(content.span().start.min(text.len()));
        let place = Place { line: Some(at), path: Some(format!("metrics.{slug}")) };
        let entry = match json(content.get_ref()) {
            Value::Object(map) => {
                draft::from_fields(Kind::Metric, place, map, |fields| metric(fields, namespace, slug, &sources))
            }
            other => draft::entry(Some(Kind::Metric), place, other),
        };
        sink.entry(entry)?;
    }
    Ok(())
}

fn metric(fields: &mut Fields<'_>, namespace: &str, slug: &str, sources: &HashMap<&str, String>) -> Draft {
    let mut definition = Definition::default();
    let Definition { summary, details } = &mut definition;
    summary.name = fields.line(&["friendly_name", "name"]).unwrap_or_else(|| slug.to_owned());
    summary.short_name = Some(slug.to_owned());
    summary.description = fields.text(&["description"]).map(|text| dedent(&text)).unwrap_or_default();
    summary.category = fields.line(&["category"]);
    summary.formula = fields.text(&["select_expression"]).map(|text| dedent(&text));
    summary.technical_owner = Some(fields.lines(&["owner"]).join(", ")).filter(|owners| !owners.is_empty());
    summary.status = if fields.flag(&["deprecated"]) == Some(true) { Status::Deprecated } else { Status::Active };
    summary.expected_direction =
        fields.flag(&["bigger_is_better"]).map(|bigger| if bigger { Direction::Increase } else { Direction::Decrease });
    if let Some(level) = fields.line(&["level"]) {
        let tier = LEVELS.iter().find(|(name, _)| *name == level.to_lowercase());
        summary.tier = tier.map(|(_, tier)| *tier);
        if tier.is_none() {
            fields.warn("level", "INVALID", "Is none of gold, silver, bronze; kept as it is", &Value::String(level.clone()));
        }
        fields.keep("level", level);
    }
    if let Some(system) = fields.line(&["data_source"]) {
        let table_or_stream = sources.get(system.as_str()).cloned();
        details.data.primary_sources = vec![Source { system, table_or_stream, connection_id: None }];
    }
    let depends_on = fields.lines(&["depends_on"]);
    if !depends_on.is_empty() {
        summary.metric_type = MetricType::Derived;
    }
    details.relationships.upstream_keys = depends_on.into_iter().map(|other| format!("{namespace}.{other}")).collect();
    Draft::Metric(Box::new(MetricDraft {
        key: format!("{namespace}.{slug}"),
        domain: Some(DomainLabel::KeyOrName(humanise(namespace))),
        definition,
        version: None,
    }))
}

/// `Firefox iOS` for `firefox_ios`.
fn humanise(namespace: &str) -> String {
    let words = namespace.split(['_', '-', ' ']).filter(|word| !word.is_empty()).map(|word| match word {
        "ios" => "iOS".to_owned(),
        _ => {
            let mut chars = word.chars();
            chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Text without blank lines around it, and without the indentation that all its lines share.
fn dedent(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let first = lines.iter().position(|line| !line.is_empty()).unwrap_or(lines.len());
    let last = lines.iter().rposition(|line| !line.is_empty()).map_or(first, |last| last + 1);
    let lines = &lines[first..last];
    let indent = |line: &&&str| line.len() - line.trim_start().len();
    // Text that begins right behind the quotes says nothing about the indentation of the rest.
    let skip = usize::from(first == 0 && lines.first().is_some_and(|line| !line.starts_with(char::is_whitespace)));
    let shared = lines.iter().skip(skip).filter(|line| !line.is_empty()).map(|line| indent(&line)).min().unwrap_or(0);
    let cut: Vec<&str> = lines
        .iter()
        .enumerate()
        .map(|(i, line)| if i < skip || line.is_empty() { *line } else { line.get(shared..).unwrap_or(line.trim_start()) })
        .collect();
    cut.join("\n")
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map_or_else(|_| Value::String(integer.to_string()), |number| Value::written(number, integer.to_string())),
        DeValue::Float(float) => match float.as_str().parse::<f64>().ok().filter(|number| number.is_finite()) {
            Some(number) => Value::written(number, float.as_str()),
            None => Value::String(float.to_string()),
        },
        DeValue::Boolean(flag) => Value::plain(*flag),
        DeValue::Datetime(time) => Value::String(time.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| json(item.get_ref())).collect()),
        DeValue::Table(table) => {
            Value::Object(table.iter().map(|(name, value)| (name.get_ref().to_string(), json(value.get_ref()))).collect::<Map>())
        }
    }
}

/// Lines by byte offset.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect())
    }

    /// From 1.
    fn at(&self, offset: usize) -> u64 {
        self.0.partition_point(|newline| *newline < offset) as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{parse, parse_bytes};
    use super::*;

    const FILE: &str = r#"
[metrics]

[metrics.ad_click_rate]
friendly_name = "Ad Click Rate"
description = """
    Ad clicks
      over searches.
"""
depends_on = ["ad_clicks", "search_count"]
level = "gold"
bigger_is_better = false

[metrics.ad_clicks]
select_expression = '{{agg_sum("ad_click")}}'
data_source = "daily"
type = "scalar"
owner = ["a@example.com", "b@example.com"]
deprecated = true
[metrics.ad_clicks.statistics.bootstrap_mean]

[data_sources.daily]
from_expression = "mozdata.search.daily"

[experiments]
"#;

    #[test]
    fn a_file_becomes_metrics_of_its_product() {
        let chunks = parse_bytes("firefox_ios.toml", FILE.as_bytes()).unwrap();
        let metrics: Vec<&MetricDraft> = chunks[0]
            .entries
            .iter()
            .map(|entry| match &entry.draft {
                Some(Draft::Metric(metric)) => &**metric,
                _ => panic!("{:?}", entry.issues),
            })
            .collect();
        assert_eq!(chunks[0].warnings[0].place.path.as_deref(), Some("experiments"));
        assert_eq!(chunks[0].entries[0].place, Place { line: Some(4), path: Some("metrics.ad_click_rate".to_owned()) });
        let (rate, clicks) = (metrics[0], metrics[1]);
        assert_eq!(
            (rate.key.as_str(), rate.domain.as_ref().map(DomainLabel::text)),
            ("firefox_ios.ad_click_rate", Some("Firefox iOS"))
        );
        assert_eq!(rate.definition.summary.description, "Ad clicks\n  over searches.");
        assert_eq!(rate.definition.summary.tier, Some(Tier::Tier1));
        assert_eq!(rate.definition.summary.expected_direction, Some(Direction::Decrease));
        assert_eq!(rate.definition.summary.metric_type, MetricType::Derived);
        assert_eq!(rate.definition.details.relationships.upstream_keys, ["firefox_ios.ad_clicks", "firefox_ios.search_count"]);
        assert_eq!(clicks.definition.summary.formula.as_deref(), Some("{{agg_sum(\"ad_click\")}}"));
        assert_eq!(clicks.definition.summary.status, Status::Deprecated);
        assert_eq!(clicks.definition.summary.technical_owner.as_deref(), Some("a@example.com, b@example.com"));
        assert_eq!(clicks.definition.details.data.primary_sources[0].table_or_stream.as_deref(), Some("mozdata.search.daily"));
        assert_eq!(clicks.definition.details.extra.0["type"], "scalar");
    }

    #[test]
    fn other_files_are_refused() {
        let refused = |text: &str| parse("x.toml", text).map(|e| e.len()).map_err(|issue| (issue.code, issue.place.line));
        assert_eq!(refused("[functions.a]\ndefinition = 'x'\n"), Ok(0));
        assert_eq!(refused("[package]\nname = 'x'\n"), Err((codes::UNKNOWN_KIND, Some(1))));
        assert_eq!(refused("[metrics.a]\ntype = 'x'\ntype = 'y'\n"), Err((codes::SYNTAX, Some(3))));
        assert_eq!(refused("[metrics.a]\ntype = \"\"\"x\n").unwrap_err().0, codes::TRUNCATED);
        assert_eq!(refused(&format!("[metrics.a]\nx = {}", "[".repeat(10_000))).unwrap_err().1, Some(2));
    }
}
