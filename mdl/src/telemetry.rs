//! Logs and traces of both programs, and the trace context that travels with jobs and events.

use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use serde::Serialize;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::Record;
use tracing::{Dispatch, Event, Level, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{FilterExt, ParseError, filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, FormattedFields};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::config::{LogFormat, TelemetryConfig};

/// Names this process so that an operator finds it: its host, and its number there.
pub fn process_name() -> String {
    format!("{}-{}", host_name(), std::process::id())
}

/// What this machine is called; `mdl` where it does not say.
pub fn host_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if host.trim().is_empty() { "mdl".to_owned() } else { host.trim().to_owned() }
}

/// Keeps the trace exporter; dropping it sends what is left.
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown()
        {
            eprintln!("Could not send the last traces: {error}");
        }
    }
}

/// Starts logging, and tracing when an endpoint is set. `service` is `mdl-api` or `mdl-worker`.
pub fn init(config: &TelemetryConfig, service: &'static str) -> anyhow::Result<Telemetry> {
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Pretty => false,
        LogFormat::Auto => !std::io::stdout().is_terminal(),
    };
    let format = tracing_subscriber::fmt::layer();
    let log = if json {
        format.json().flatten_event(true).with_current_span(true).with_span_list(false).fmt_fields(SpanFields).boxed()
    } else {
        format.with_ansi(std::io::stdout().is_terminal()).boxed()
    };
    let provider = match &config.otlp_endpoint {
        None => None,
        Some(endpoint) => {
            let exporter =
                opentelemetry_otlp::SpanExporter::builder().with_http().with_endpoint(endpoint.join("v1/traces")?).build()?;
            let resource = opentelemetry_sdk::Resource::builder().with_service_name(service).build();
            Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
        }
    };
    dispatch(log, &config.log, provider.as_ref().map(|provider| provider.tracer(service)))?.try_init()?;
    Ok(Telemetry(provider))
}

/// What is said goes to the log as far as `directives` want it there. Spans go to the tracer whatever they want: a trace from a request
/// over its job to a webhook must not break because the log is to say less.
fn dispatch(
    log: impl Layer<Registry> + Send + Sync,
    directives: &str,
    tracer: Option<SdkTracer>,
) -> Result<Dispatch, ParseError> {
    // apalis tells of the beginning and end of each queue's worker, with values as Rust writes them; the worker says the same. It has
    // no spans of its own.
    let all = directives.contains("apalis");
    let heard = filter_fn(move |event| all || *event.level() <= Level::WARN || !event.target().starts_with("apalis"));
    let wanted = EnvFilter::try_new(directives)?;
    Ok(match tracer {
        // Nobody else hears: what is not for the log is not even begun, and who asks for the level is told that.
        None => Dispatch::new(tracing_subscriber::registry().with(log).with(wanted).with(heard)),
        Some(tracer) => {
            let traces = tracing_opentelemetry::layer().with_tracer(tracer).with_filter(LevelFilter::INFO);
            Dispatch::new(tracing_subscriber::registry().with(log.with_filter(wanted.and(heard))).with(traces))
        }
    })
}

/// Has warnings and errors of a command said on stderr, a sentence each: who gave it reads them, and what it prints on stdout is for
/// programs as well. More or less of it when `MDL_LOG` says so; that it is `info` for programs that run does not count here, so the
/// setting is asked for itself.
pub fn say_on_stderr() -> anyhow::Result<Said> {
    let said = Said::default();
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).with_env_var("MDL_LOG").from_env()?;
    let clear = if std::io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    tracing_subscriber::registry().with(filter).with(OnStderr { clear, said: said.clone() }).try_init()?;
    Ok(said)
}

/// What a command has said on stderr. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Said(Arc<Mutex<String>>);

impl Said {
    /// Whether it has said this, perhaps with more about it.
    pub fn has(&self, sentence: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(sentence)
    }

    fn add(&self, line: &str) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.push_str(line);
        said.push('\n');
    }
}

struct OnStderr {
    /// Takes away a line that tells how far a command is.
    clear: &'static str,
    said: Said,
}

impl<S: Subscriber> Layer<S> for OnStderr {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = Sentence::of(event);
        eprintln!("{}{line}", self.clear);
        self.said.add(&line);
    }
}

/// An event for people: what it says, why, and what it is about.
#[derive(Default)]
struct Sentence {
    message: String,
    why: String,
    about: Vec<String>,
}

impl Sentence {
    fn of(event: &Event<'_>) -> String {
        let mut sentence = Self::default();
        event.record(&mut sentence);
        let kind = match *event.metadata().level() {
            Level::ERROR => "Error: ",
            Level::WARN => "Warning: ",
            _ => "",
        };
        let Self { message, why, about } = sentence;
        let why = if why.is_empty() { why } else { format!(": {why}") };
        let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
        format!("{kind}{message}{why}{about}")
    }

    fn add(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "error" => self.why = value,
            // Where in a library it was said that logs in another way.
            name if name.starts_with("log.") => {}
            name => self.about.push(format!("{name} {value}")),
        }
    }
}

impl Visit for Sentence {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}

/// The fields of a span, as JSON, written once: the formatter of the crate makes a map of them first, and parses that again
/// whenever one is added, several times a request.
struct SpanFields;

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'writer>, fields: R) -> fmt::Result {
        writer.write_str(&FieldsJson::of(fields)?)
    }

    fn add_fields(&self, current: &'writer mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let added = FieldsJson::of(fields)?;
        if current.fields.len() > "{}".len() && added != "{}" {
            // `{…}` and `{…}` become `{…,…}`.
            current.fields.pop();
            current.fields.push(',');
            current.fields.push_str(&added[1..]);
        } else if added != "{}" {
            current.fields = added;
        }
        Ok(())
    }
}

/// A JSON object that grows by one field after the other.
struct FieldsJson {
    json: Vec<u8>,
    failed: bool,
}

impl FieldsJson {
    fn of(fields: impl RecordFields) -> Result<String, fmt::Error> {
        let mut object = Self { json: Vec::with_capacity(256), failed: false };
        object.json.push(b'{');
        fields.record(&mut object);
        object.json.push(b'}');
        if object.failed { Err(fmt::Error) } else { String::from_utf8(object.json).map_err(|_| fmt::Error) }
    }

    fn add(&mut self, field: &Field, value: impl Serialize) {
        if self.json.len() > 1 {
            self.json.push(b',');
        }
        let name = serde_json::to_writer(&mut self.json, field.name());
        self.json.push(b':');
        self.failed |= name.is_err() || serde_json::to_writer(&mut self.json, &value).is_err();
    }
}

impl Visit for FieldsJson {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format_args!("{value:?}"));
    }
}

/// The W3C trace context of the current span, to be stored with a job or an event. Empty when nothing is traced.
pub fn trace_context() -> Value {
    let mut fields = HashMap::<String, String>::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut fields);
    Value::from_iter(fields)
}

/// Makes `span` a child of the stored trace context.
pub fn continue_trace(span: &Span, context: &Value) {
    let fields: HashMap<String, String> = serde_json::from_value(context.clone()).unwrap_or_default();
    if !fields.is_empty()
        && let Err(error) = span.set_parent(TraceContextPropagator::new().extract(&fields))
    {
        tracing::debug!(%error, "Could not continue a trace");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, Write};

    use serde_json::json;
    use tracing::{error, field, info, info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_that_a_span_gets_later_are_in_its_lines() {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt::layer().json().with_current_span(true).fmt_fields(SpanFields);
        let subscriber = tracing_subscriber::registry().with(format.with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            let span = info_span!("request", method = "GET", status = field::Empty, actor = field::Empty);
            span.record("status", 200);
            span.record("actor", "a \"quoted\" name");
            let _entered = span.enter();
            info!("answered");
            let _late = info_span!("empty", late = field::Empty).entered();
            tracing::Span::current().record("late", true);
            info!("answered");
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let spans: Vec<Value> = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["span"].clone()).collect();
        assert_eq!(spans[0]["method"], "GET");
        assert_eq!(spans[0]["status"], 200);
        assert_eq!(spans[0]["actor"], "a \"quoted\" name");
        assert_eq!(spans[1]["late"], true);
    }

    #[test]
    fn a_log_that_says_less_breaks_no_trace() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        tracing::dispatcher::with_default(&dispatch(log, "warn", Some(tracer)).unwrap(), || {
            let request = info_span!("request");
            let trace = "0af7651916cd43dd8448eb211c80319c";
            continue_trace(&request, &json!({ "traceparent": format!("00-{trace}-b7ad6b7169203331-01") }));
            let context = request.in_scope(|| {
                info!("not wanted");
                warn!("wanted");
                trace_context()
            });
            assert!(context["traceparent"].as_str().unwrap().contains(trace), "{context}");
            let job = info_span!("job");
            continue_trace(&job, &context);
            assert!(job.in_scope(trace_context)["traceparent"].as_str().unwrap().contains(trace));
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(lines.contains("wanted") && !lines.contains("not wanted"), "{lines}");
    }

    /// The api answers repeated requests without a span, as long as nobody would see it.
    #[test]
    fn nothing_is_heard_that_nobody_wants() {
        for (directives, level) in
            [("info", LevelFilter::INFO), ("warn,mdl=info", LevelFilter::INFO), ("debug", LevelFilter::DEBUG)]
        {
            let log = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
            tracing::dispatcher::with_default(&dispatch(log, directives, None).unwrap(), || {
                assert_eq!(LevelFilter::current(), level, "{directives}");
            });
        }
    }

    #[test]
    fn what_a_command_says_is_a_sentence() {
        let said = Said::default();
        let subscriber = tracing_subscriber::registry().with(OnStderr { clear: "", said: said.clone() });
        tracing::subscriber::with_default(subscriber, || {
            error!(backup.id = 7, place = "s3://there", error = "The disk is \"full\"", "A backup was not copied");
            warn!(error = %Error::other("no answer"), "Could not tell Redis");
            info!("Done");
        });
        let lines = said.0.lock().unwrap().clone();
        let first = "Error: A backup was not copied: The disk is \"full\" (backup.id 7, place s3://there)";
        assert_eq!(lines.lines().collect::<Vec<_>>(), [first, "Warning: Could not tell Redis: no answer", "Done"]);
        assert!(said.has("The disk is \"full\"") && !said.has("The disk is empty"));
    }
}
