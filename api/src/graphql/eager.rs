//! Objects whose fields are mostly at hand.
//!
//! async-graphql makes a future of each selected field and of each item of a list, boxes it, and hands all of them to an
//! executor: for a page of fifty metrics with nine fields that is most of the request, though hardly one of them ever waits.
//! [`Eager`] and [`EagerList`] poll each once where it stands, in one box that is used again for the next, and keep only those
//! that wait. What they answer is what async-graphql answers, except that they know no extensions and no directives of a
//! schema, of which we have none.
//!
//! Where nothing of the answer is to be merged they go further, and write it as the JSON that it will be (`json`).

mod json;

use std::borrow::Cow;
use std::task::Poll;

use async_graphql::indexmap::IndexMap;
use async_graphql::indexmap::map::Entry;
use async_graphql::parser::types::{Field, Selection, SelectionSet};
use async_graphql::registry::Registry;
use async_graphql::{ContextSelectionSet, Name, OutputType, Positioned, ServerResult, Value};
use futures::future::try_join_all;
use tokio_util::sync::ReusableBoxFuture;

pub(crate) use self::json::plain_fields;
pub use self::json::{AsJson, Inner, Plain, WriteJson, answer_json};

/// An object that appears many times in an answer.
pub struct Eager<T>(pub T);

impl<T: Plain> OutputType for Eager<T> {
    fn type_name() -> Cow<'static, str> {
        T::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        T::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _field: &Positioned<Field>) -> ServerResult<Value> {
        // Boxed, or the future of every field of what this is a field of would have room for it.
        if AsJson::wanted(ctx) {
            Box::pin(json::object(ctx, &self.0)).await
        } else {
            Box::pin(resolve_object(ctx, &self.0)).await
        }
    }
}

/// A list of such objects.
pub struct EagerList<T>(pub Vec<T>);

impl<T: Plain> OutputType for EagerList<T> {
    fn type_name() -> Cow<'static, str> {
        Vec::<T>::type_name()
    }

    fn create_type_info(registry: &mut Registry) -> String {
        Vec::<T>::create_type_info(registry)
    }

    async fn resolve(&self, ctx: &ContextSelectionSet<'_>, _field: &Positioned<Field>) -> ServerResult<Value> {
        if AsJson::wanted(ctx) {
            return Box::pin(json::list(ctx, &self.0)).await;
        }
        let items = self.0.iter().enumerate().map(|(index, item)| resolve_item(ctx.clone(), index, item));
        resolve_all(items, self.0.len()).await.map(Value::List)
    }
}

async fn resolve_item<T: Plain>(ctx: ContextSelectionSet<'_>, index: usize, item: &T) -> ServerResult<Value> {
    let ctx = ctx.with_index(index);
    resolve_object(&ctx, item).await.map_err(|error| ctx.set_error_path(error))
}

async fn resolve_object<'a, T: Plain>(ctx: &ContextSelectionSet<'a>, object: &'a T) -> ServerResult<Value> {
    let mut fields = Vec::with_capacity(ctx.item.node.items.len());
    select::<T>(ctx, &ctx.item.node, &mut fields);
    let values = resolve_all(fields.iter().map(|field| resolve_field(ctx.clone(), object, field)), fields.len()).await?;
    let names = fields.into_iter().map(|field| field.node.response_key().node.clone());
    Ok(Value::Object(merged(names.zip(values))))
}

/// The values of `count` futures in their order, or the first error. All of them are begun before any is waited for.
async fn resolve_all<'a, F>(mut futures: impl Iterator<Item = F> + Send, count: usize) -> ServerResult<Vec<Value>>
where
    F: Future<Output = ServerResult<Value>> + Send + 'a,
{
    let mut values = Vec::with_capacity(count);
    let mut waiting = Vec::new();
    let mut left = None;
    // No future may be a local of this one, which would then have room for it: it would be a part of itself.
    while let Some(mut polled) = futures.next().map(|future| in_box(future, left.take())) {
        match futures::poll!(&mut polled) {
            Poll::Ready(value) => {
                values.push(value?);
                left = Some(polled);
            }
            Poll::Pending => {
                waiting.push((values.len(), polled));
                values.push(Value::Null);
            }
        }
    }
    drop(left);
    if !waiting.is_empty() {
        let late = waiting.into_iter().map(async |(place, future)| future.await.map(|value| (place, value)));
        for (place, value) in try_join_all(late).await? {
            values[place] = value;
        }
    }
    Ok(values)
}

/// A future, in the box that is left over from one before it.
fn in_box<'a, F>(future: F, left: Option<ReusableBoxFuture<'a, F::Output>>) -> ReusableBoxFuture<'a, F::Output>
where
    F: Future + Send + 'a,
{
    match left {
        None => ReusableBoxFuture::new(future),
        Some(mut left) => {
            left.set(future);
            left
        }
    }
}

/// One field: a future of always the same type, whichever field it is.
async fn resolve_field<'a, T: Plain>(
    ctx: ContextSelectionSet<'a>,
    object: &'a T,
    field: &'a Positioned<Field>,
) -> ServerResult<Value> {
    if field.node.name.node == "__typename" {
        return Ok(Value::String(object.introspection_type_name().into_owned()));
    }
    let ctx = ctx.with_field(field);
    Ok(object.resolve_field(&ctx).await?.unwrap_or_default())
}

/// The fields of a selection, with those in fragments that apply to the type.
fn select<'a, T: Plain>(ctx: &ContextSelectionSet<'a>, set: &'a SelectionSet, fields: &mut Vec<&'a Positioned<Field>>) {
    for selection in &set.items {
        let (condition, set) = match &selection.node {
            Selection::Field(field) => {
                fields.push(field);
                continue;
            }
            Selection::InlineFragment(inline) => (inline.node.type_condition.as_ref(), &inline.node.selection_set.node),
            Selection::FragmentSpread(spread) => {
                // Validation has refused names that there are not.
                let Some(fragment) = ctx.query_env.fragments.get(&spread.node.fragment_name.node) else { continue };
                (Some(&fragment.node.type_condition), &fragment.node.selection_set.node)
            }
        };
        let applies = condition.is_none_or(|condition| {
            let (name, on) = (T::type_name(), condition.node.on.node.as_str());
            let interfaces = ctx.schema_env.registry.implements.get(&*name);
            name == on || interfaces.is_some_and(|interfaces| interfaces.contains(on))
        });
        if applies {
            select::<T>(ctx, set, fields);
        }
    }
}

/// The values under their names; two selections under one name are parts of the same value.
fn merged(values: impl ExactSizeIterator<Item = (Name, Value)>) -> IndexMap<Name, Value> {
    let mut object = IndexMap::with_capacity(values.len());
    for (name, value) in values {
        match object.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(value);
            }
            Entry::Occupied(mut entry) => merge(entry.get_mut(), value),
        }
    }
    object
}

fn merge(value: &mut Value, other: Value) {
    match (value, other) {
        (Value::Object(object), Value::Object(other)) => {
            for (name, other) in other {
                match object.get_mut(&name) {
                    Some(value) => merge(value, other),
                    None => {
                        object.insert(name, other);
                    }
                }
            }
        }
        (Value::List(list), Value::List(other)) => list.iter_mut().zip(other).for_each(|(value, other)| merge(value, other)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;
    use async_graphql::{Context, EmptyMutation, EmptySubscription, Interface, Object, Request, Result, Schema};

    use super::*;
    use crate::documents::repeats;

    /// Has fields of all kinds: at hand, late, failing, nested, many.
    #[derive(Clone)]
    struct Thing(i32);

    plain_fields!(Thing { "name" => name, "names" => names }
        fn write_object(&self, field: &str, ctx: &Context<'_>, inner: &mut Inner<'_>, json: &mut Vec<u8>) -> bool {
            match (field, self.0) {
                ("next", 1..3) => inner.write(&Thing(self.0 + 1), ctx, json),
                ("next", 3..) => {
                    None::<i32>.write(json);
                    true
                }
                _ => false,
            }
        }
    );

    #[Object]
    impl Thing {
        async fn id(&self) -> i32 {
            self.0
        }

        fn name(&self) -> String {
            format!("thing {}", self.0)
        }

        fn names(&self) -> &[String] {
            &[]
        }

        async fn late(&self, turns: Option<usize>) -> i32 {
            for _ in 0..turns.unwrap_or(3) {
                tokio::task::yield_now().await;
            }
            -self.0
        }

        fn refused(&self) -> Option<Result<i32>> {
            Some(Err("refused".into()))
        }

        async fn refused_late(&self) -> Result<i32> {
            tokio::task::yield_now().await;
            if self.0 % 2 == 0 { Ok(self.0) } else { Err("refused late".into()) }
        }

        async fn next(&self) -> Option<Eager<Thing>> {
            (self.0 < 3).then_some(Eager(Thing(self.0 + 1)))
        }

        async fn all(&self) -> EagerList<Thing> {
            EagerList((0..self.0).map(Thing).collect())
        }
    }

    #[derive(Interface)]
    #[graphql(field(name = "id", ty = "i32"))]
    enum Named {
        Thing(Thing),
    }

    struct Query;

    #[Object]
    impl Query {
        async fn plain(&self) -> Option<Thing> {
            Some(Thing(2))
        }

        async fn eager(&self) -> Option<Eager<Thing>> {
            Some(Eager(Thing(2)))
        }

        async fn named(&self) -> Named {
            Thing(1).into()
        }
    }

    /// What async-graphql makes of a selection by itself, and what `Eager` makes of it, as values and as JSON.
    async fn each_way(selection: &str) -> [String; 3] {
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription).finish();
        let fragments = "fragment F on Thing { name ...G } fragment G on Named { id }";
        let used = if selection.contains("...F") { fragments } else { "" };
        let answer = async |field: &str, as_json: bool| {
            let request = Request::new(format!("{{ thing: {field} {{ {selection} }} }} {used}"));
            let response = schema.execute(if as_json { request.data(AsJson) } else { request }).await;
            let text = answer_json(&response);
            // Places in the document differ by the length of the field's name.
            text.split("\"locations\"").map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect::<String>()
        };
        [answer("plain", false).await, answer("eager", false).await, answer("eager", true).await]
    }

    #[tokio::test]
    async fn answers_what_async_graphql_answers() {
        for selection in [
            "id name",
            "name id late __typename",
            "names name l: late(turns: 2) m: late(turns: 4) k: name",
            "all { l: late id n: late(turns: 1) next { late name } } name",
            "all { all { all { late name } id } } ",
            "next { n: refusedLate } all { id }",
            "all { next { n: name ...F __typename } } next { ... on Named { id } name }",
            "all { next { name } } next { m: name ... on Thing { names } t: __typename }",
            "a: late(turns: 5) b: late(turns: 1) c: name",
            "t: __typename next { __typename next { id next { id } } }",
            "...F late",
            "... on Thing { id } ... on Named { id } ... { name }",
            "all { id } all { name late } next { id } next { name }",
            "name name late late",
            "refused id",
            "refusedLate id",
            "all { id refused } late",
            "next { refusedLate } id",
            "id @include(if: false) name @skip(if: false)",
        ] {
            let [plain, eager, json] = each_way(selection).await;
            assert_eq!(plain, eager, "{selection}");
            let merged = repeats(
                &parse_query(format!("{{ {selection} }} fragment F on T {{ name ...G }} fragment G on N {{ id }}")).unwrap(),
            );
            if !merged {
                assert_eq!(plain, json, "{selection}");
            }
        }
    }
}
