//! Eager objects as JSON, written once.
//!
//! A list becomes one [`Value::Binary`] with the text that it will be in the answer: no map, no name and no string is made for
//! it that would only be written out and dropped. [`answer_json`] writes such values as they are. Two parts of one value
//! (`{ a { b } a { c } }`) cannot be merged as texts, so an operation that has any does without ([`AsJson`]).

use std::future::poll_fn;
use std::io;
use std::task::{self, Poll};

use async_graphql::parser::types::{Field, SelectionSet};
use async_graphql::{Context, ContextSelectionSet, ID, ObjectType, Positioned, Response, ServerResult, Value};
use chrono::{DateTime, Utc};
use futures::future::{BoxFuture, join_all, try_join_all};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::Formatter;
use tokio_util::sync::ReusableBoxFuture;

use super::{in_box, resolve_field, select};

/// Data of a request: its answer is written by [`answer_json`], and nothing in it is to be merged.
pub struct AsJson;

impl AsJson {
    pub fn wanted(ctx: &ContextSelectionSet<'_>) -> bool {
        ctx.data_opt::<AsJson>().is_some()
    }
}

/// An object some of whose fields are at hand, and can write themselves.
pub trait Plain: ObjectType {
    /// Writes the value of a field that has no arguments. `false`, and nothing is written, for a field that has to be resolved.
    fn write(&self, _field: &str, _ctx: &Context<'_>, _json: &mut Vec<u8>) -> bool {
        false
    }

    /// Loads what a field of all these objects needs, so that they do not ask for it one by one. What goes wrong with that, each
    /// of them finds out for itself.
    fn ahead(_objects: &[&Self], _field: &str, _ctx: &Context<'_>) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// Writes a field whose value is an object, if that is at hand. `false`, and nothing is written, otherwise.
    fn write_object(&self, _field: &str, _ctx: &Context<'_>, _inner: &mut Inner<'_>, _json: &mut Vec<u8>) -> bool {
        false
    }
}

impl<T: Plain> Plain for &T {
    fn write(&self, field: &str, ctx: &Context<'_>, json: &mut Vec<u8>) -> bool {
        (*self).write(field, ctx, json)
    }

    fn ahead(objects: &[&Self], field: &str, ctx: &Context<'_>) -> Option<BoxFuture<'static, ()>> {
        let objects: Vec<&T> = objects.iter().map(|object| **object).collect();
        T::ahead(&objects, field, ctx)
    }

    fn write_object(&self, field: &str, ctx: &Context<'_>, inner: &mut Inner<'_>, json: &mut Vec<u8>) -> bool {
        (*self).write_object(field, ctx, inner, json)
    }
}

/// Says which fields of an object write themselves: those whose resolvers are no futures. Behind them, what else is to be said
/// of [`Plain`].
macro_rules! plain_fields {
    ($object:ty { $($name:literal => $field:ident),+ $(,)? } $($more:tt)*) => {
        impl $crate::graphql::eager::Plain for $object {
            fn write(&self, field: &str, ctx: &async_graphql::Context<'_>, json: &mut Vec<u8>) -> bool {
                match field {
                    $($name => $crate::graphql::eager::WriteJson::write(&self.$field(ctx), json),)+
                    _ => return false,
                }
                true
            }

            $($more)*
        }
    };
}
pub(crate) use plain_fields;

/// A value that is written as async-graphql would give it.
pub trait WriteJson {
    fn write(&self, json: &mut Vec<u8>);
}

/// Appends a value. Nothing that is written here can fail: it is text, numbers, and lists and maps of them.
fn append(json: &mut Vec<u8>, value: impl Serialize) {
    value.serialize(&mut Serializer::with_formatter(json, Whole)).expect("an answer is plain data");
}

/// As their `Serialize` says.
macro_rules! as_serialized {
    ($($value:ty),+) => {
        $(impl WriteJson for $value {
            fn write(&self, json: &mut Vec<u8>) {
                append(json, self);
            }
        })+
    };
}
as_serialized!(str, String, bool, i32, f64, [String], Value);

impl WriteJson for ID {
    fn write(&self, json: &mut Vec<u8>) {
        self.0.write(json);
    }
}

impl WriteJson for DateTime<Utc> {
    fn write(&self, json: &mut Vec<u8>) {
        self.to_rfc3339().write(json);
    }
}

impl<T: WriteJson> WriteJson for Option<T> {
    fn write(&self, json: &mut Vec<u8>) {
        match self {
            Some(value) => value.write(json),
            None => json.extend_from_slice(b"null"),
        }
    }
}

impl<T: WriteJson + ?Sized> WriteJson for &T {
    fn write(&self, json: &mut Vec<u8>) {
        (**self).write(json);
    }
}

/// Enums, as the schema spells them.
macro_rules! enum_names {
    ($($value:ty),+ $(,)?) => {
        $(impl WriteJson for $value {
            fn write(&self, json: &mut Vec<u8>) {
                async_graphql::resolver_utils::enum_value(*self).write(json);
            }
        })+
    };
}
enum_names!(
    crate::graphql::metrics::enums::Tier,
    crate::graphql::metrics::enums::IndicatorKind,
    crate::graphql::metrics::enums::MetricType,
    crate::graphql::metrics::enums::MetricStatus,
    crate::graphql::objectives::enums::ObjectiveStatus,
    crate::graphql::objectives::enums::KeyResultDirection,
);

/// The JSON of an answer.
pub fn answer_json(response: &Response) -> String {
    let mut json = Vec::with_capacity(256);
    append(&mut json, response);
    String::from_utf8(json).expect("JSON is text")
}

/// Compact JSON, in which bytes are JSON already.
struct Whole;

impl Formatter for Whole {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        writer.write_all(value)
    }
}

pub async fn object<'a, T: Plain>(ctx: &'a ContextSelectionSet<'a>, object: &'a T) -> ServerResult<Value> {
    let mut page = Page::new::<T>(ctx);
    poll_fn(|task| Poll::Ready(page.object(task, object, None))).await?;
    page.finish().await
}

pub async fn list<'a, T: Plain>(ctx: &'a ContextSelectionSet<'a>, objects: &'a [T]) -> ServerResult<Value> {
    let mut page = Page::new::<T>(ctx);
    if objects.len() > 1 {
        page.ask_ahead(objects).await;
    }
    poll_fn(|task| Poll::Ready(page.list(task, objects))).await?;
    page.finish().await
}

type Late<'a> = ReusableBoxFuture<'a, ServerResult<Value>>;

/// Objects of one selection, as far as they are written.
struct Page<'a> {
    ctx: &'a ContextSelectionSet<'a>,
    fields: Vec<Selected<'a>>,
    json: Vec<u8>,
    /// Values that are not there yet, and where they belong.
    late: Vec<(usize, Late<'a>)>,
    /// A box to use again.
    left: Option<Late<'a>>,
}

struct Selected<'a> {
    field: &'a Positioned<Field>,
    ctx: Context<'a>,
    key: String,
    /// Whether it may write itself, as far as is known.
    plain: bool,
    inner: Inner<'a>,
}

/// What is selected of an object within an object.
pub struct Inner<'a> {
    ctx: &'a ContextSelectionSet<'a>,
    set: &'a SelectionSet,
    /// Found when there is the first such object.
    fields: Option<Vec<(&'a str, String)>>,
    /// Whether all of it may write itself, as far as is known.
    plain: bool,
}

impl Inner<'_> {
    /// Writes an object, if all that is selected of it can write itself. `false`, and nothing is written, otherwise.
    pub fn write<T: Plain>(&mut self, object: &T, ctx: &Context<'_>, json: &mut Vec<u8>) -> bool {
        let fields = self.fields.get_or_insert_with(|| {
            let mut fields = Vec::with_capacity(self.set.items.len());
            select::<T>(self.ctx, self.set, &mut fields);
            fields.into_iter().enumerate().map(|(place, field)| (field.node.name.node.as_str(), key(place, field))).collect()
        });
        let start = json.len();
        json.push(b'{');
        for (name, key) in fields {
            json.extend_from_slice(key.as_bytes());
            if *name == "__typename" {
                object.introspection_type_name().as_ref().write(json);
            } else if !object.write(name, ctx, json) {
                self.plain = false;
                json.truncate(start);
                return false;
            }
        }
        json.push(b'}');
        true
    }
}

/// `"name":`, behind a comma unless it is the first.
fn key(place: usize, field: &Positioned<Field>) -> String {
    // A name in GraphQL has no character that JSON escapes.
    format!("{}\"{}\":", if place > 0 { "," } else { "" }, field.node.response_key().node)
}

impl<'a> Page<'a> {
    fn new<T: Plain>(ctx: &'a ContextSelectionSet<'a>) -> Self {
        let mut fields = Vec::with_capacity(ctx.item.node.items.len());
        select::<T>(ctx, &ctx.item.node, &mut fields);
        let fields = fields.into_iter().enumerate().map(|(place, field)| Selected {
            field,
            ctx: ctx.with_field(field),
            key: key(place, field),
            plain: field.node.selection_set.node.items.is_empty(),
            inner: Inner { ctx, set: &field.node.selection_set.node, fields: None, plain: true },
        });
        Self { ctx, fields: fields.collect(), json: Vec::new(), late: Vec::new(), left: None }
    }

    async fn ask_ahead<T: Plain>(&self, objects: &[T]) {
        let objects: Vec<&T> = objects.iter().collect();
        let waiting = self.fields.iter().filter(|selected| !selected.plain);
        join_all(waiting.filter_map(|selected| T::ahead(&objects, &selected.field.node.name.node, &selected.ctx))).await;
    }

    fn list<T: Plain>(&mut self, task: &mut task::Context<'_>, objects: &'a [T]) -> ServerResult<()> {
        self.json.push(b'[');
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                self.json.push(b',');
            }
            self.object(task, object, Some(index))?;
        }
        self.json.push(b']');
        Ok(())
    }

    fn object<T: Plain>(&mut self, task: &mut task::Context<'_>, object: &'a T, index: Option<usize>) -> ServerResult<()> {
        self.json.push(b'{');
        for selected in &mut self.fields {
            self.json.extend_from_slice(selected.key.as_bytes());
            let name = selected.field.node.name.node.as_str();
            if selected.plain {
                if name == "__typename" {
                    object.introspection_type_name().as_ref().write(&mut self.json);
                    continue;
                }
                selected.plain = object.write(name, &selected.ctx, &mut self.json);
                if selected.plain {
                    continue;
                }
            }
            let inner = &mut selected.inner;
            if inner.plain && object.write_object(name, &selected.ctx, inner, &mut self.json) {
                continue;
            }
            let resolving = resolve_one(self.ctx.clone(), object, selected.field, index);
            let mut resolving = in_box(resolving, self.left.take());
            match resolving.poll(task) {
                Poll::Ready(value) => {
                    value?.write(&mut self.json);
                    self.left = Some(resolving);
                }
                Poll::Pending => self.late.push((self.json.len(), resolving)),
            }
        }
        self.json.push(b'}');
        Ok(())
    }

    /// The text, once all of it is there.
    async fn finish(self) -> ServerResult<Value> {
        drop(self.left);
        if self.late.is_empty() {
            return Ok(Value::Binary(self.json.into()));
        }
        let (places, late): (Vec<_>, Vec<_>) = self.late.into_iter().unzip();
        let values = try_join_all(late).await?;
        let mut json = Vec::with_capacity(self.json.len() + values.len() * 16);
        let mut written = 0;
        for (place, value) in places.into_iter().zip(values) {
            json.extend_from_slice(&self.json[written..place]);
            value.write(&mut json);
            written = place;
        }
        json.extend_from_slice(&self.json[written..]);
        Ok(Value::Binary(json.into()))
    }
}

/// One field of an object, which may be an item of a list.
async fn resolve_one<'a, T: Plain>(
    ctx: ContextSelectionSet<'a>,
    object: &'a T,
    field: &'a Positioned<Field>,
    index: Option<usize>,
) -> ServerResult<Value> {
    let Some(index) = index else { return resolve_field(ctx, object, field).await };
    let ctx = ctx.with_index(index);
    resolve_field(ctx.clone(), object, field).await.map_err(|error| ctx.set_error_path(error))
}
