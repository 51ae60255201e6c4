//! What happens, told on standard error: a line for each event, for people or as JSON.
//!
//! A few dozen lines in place of a crate of subscribers: there are no spans here, one level is cut off, and fields have
//! four types.

use clap::ValueEnum;
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// How events are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Not at all, but for warnings and errors.
    Quiet,
}

/// Begins to write this program's events. Once a process; later calls change nothing.
pub(crate) fn start(form: Form) {
    let _ = tracing::subscriber::set_global_default(Logs { form });
}

struct Logs {
    form: Form,
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let most = if self.form == Form::Quiet { Level::WARN } else { Level::INFO };
        *metadata.level() <= most
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let milliseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        let line = line(self.form, milliseconds, *event.metadata().level(), event.metadata().target(), fields.0);
        // Nobody to tell if nobody listens.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn line(form: Form, milliseconds: u64, level: Level, target: &str, mut fields: Map<String, Value>) -> String {
    let message = fields.shift_remove("message").unwrap_or_default();
    if form == Form::Json {
        let mut object = Map::new();
        object.insert("time_ms".to_owned(), milliseconds.into());
        object.insert("level".to_owned(), level.as_str().to_lowercase().into());
        object.insert("target".to_owned(), target.into());
        object.insert("message".to_owned(), message);
        object.extend(fields);
        return format!("{}\n", Value::Object(object));
    }
    let mut line = format!("{:5} {}", level.as_str(), message.as_str().unwrap_or_default());
    for (name, value) in fields {
        // Quoted where it has more than a word, so that no value forges a line or a field.
        let plain = value.as_str().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"'));
        line += &format!(" {name}={}", plain.map_or_else(|| value.to_string(), str::to_owned));
    }
    line + "\n"
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_its_fields_hold() {
        let fields = || {
            let text = |text: &str| Value::from(text);
            Map::from_iter([
                ("message".to_owned(), text("refused")),
                ("path".to_owned(), text("/a\nb c")),
                ("n".to_owned(), 3.into()),
            ])
        };
        let got = line(Form::Text, 5, Level::INFO, "gateway", fields());
        assert_eq!(got, "INFO  refused path=\"/a\\nb c\" n=3\n");
        let got = line(Form::Json, 5, Level::WARN, "gateway", fields());
        let value: Value = serde_json::from_str(got.trim_end()).unwrap();
        assert_eq!(
            (&value["level"], &value["path"], &value["time_ms"]),
            (&"warn".into(), &"/a\nb c".into(), &5.into())
        );
        assert_eq!(got.matches('\n').count(), 1);
    }
}
