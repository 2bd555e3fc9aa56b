//! Publishing a manifest: read it, hold each of its documents against the schema, store all or none.

use std::borrow::Borrow;
use std::collections::HashMap;

use apollo_compiler::ast;
use async_graphql::ServerError;
use mdl::actor::Permission;
use mdl::documents::{self, Caching, Document, MAX_NAME, NewDocument, manifest, store};
use mdl::error::{Code, Problem};
use mdl::{Actor, App, Error, Result};

use super::{ParsedDocument, Validator};

/// Problems that are told of one manifest: nobody reads more.
const MAX_PROBLEMS: usize = 100;
/// The name of a document whose operation has none.
const ANONYMOUS: &str = "anonymous";

/// A published document that the schema refuses now, and in which words.
pub struct Outdated {
    pub document: Document,
    pub errors: Vec<ServerError>,
}

/// A document of a manifest that the schema refuses.
struct Refused {
    id: String,
    /// Where it has one.
    name: Option<String>,
    errors: Vec<ServerError>,
}

/// Publishes the documents of a manifest. A document that the schema refuses is a problem of the field `manifest`, with its
/// name, line and column; then none is published.
pub async fn publish(
    app: &App,
    actor: &Actor,
    validator: &Validator,
    text: &str,
    caching: Option<Caching>,
) -> Result<Vec<Document>> {
    actor.require(Permission::PublishDocuments)?;
    let entries = manifest::read(text)?;
    if let Some(problem) = documents::too_many(entries.len()) {
        return Err(Error::Invalid(vec![problem]));
    }
    let (mut new, mut refused) = (Vec::with_capacity(entries.len()), Vec::new());
    for manifest::Entry { id, name, text } in entries {
        match validator.check(&text).await {
            Ok(document) => {
                let name = name.unwrap_or_else(|| name_of(&document));
                new.push(NewDocument { document_id: id, name, text });
            }
            Err(errors) => refused.push(Refused { id, name: name.or_else(|| joined(names_in(&text))), errors }),
        }
        // Validating a long manifest must not keep other requests waiting.
        tokio::task::yield_now().await;
    }
    if refused.is_empty() { documents::publish(app, actor, &new, caching).await } else { Err(refusal(&new, &refused)) }
}

/// What the schema says of the refused documents of a manifest, which has the `good` ones as well.
fn refusal(good: &[NewDocument], refused: &[Refused]) -> Error {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    let named = refused.iter().filter_map(|document| document.name.as_deref());
    for name in good.iter().map(|document| document.name.as_str()).chain(named) {
        *uses.entry(name).or_default() += 1;
    }
    let alone = good.len() + refused.len() == 1;
    let mut problems = Vec::new();
    for Refused { id, name, errors } in refused {
        let label = match name {
            Some(name) if uses[name.as_str()] > 1 => format!("{name} ({id})"),
            Some(name) => name.clone(),
            None if alone => ANONYMOUS.to_owned(),
            None => id.clone(),
        };
        problems
            .extend(errors.iter().map(|error| Problem::new("manifest", Code::Invalid, format!("{label}{}", sentence(error)))));
    }
    problems.truncate(MAX_PROBLEMS);
    Error::Invalid(problems)
}

/// Which of these documents the schema refuses.
pub async fn outdated(validator: &Validator, documents: Vec<Document>) -> Vec<Outdated> {
    let mut outdated = Vec::new();
    for document in documents {
        if let Err(errors) = validator.check(&document.text).await {
            outdated.push(Outdated { document, errors });
        }
        tokio::task::yield_now().await;
    }
    outdated
}

/// Which of the documents that the actor's tenant may run the schema refuses.
pub async fn outdated_of(app: &App, actor: &Actor, validator: &Validator) -> Result<Vec<Outdated>> {
    actor.require(Permission::PublishDocuments)?;
    let tx = app.db.begin(actor.tenant).await?;
    let documents = store::all_runnable(&tx).await?;
    tx.commit().await?;
    Ok(outdated(validator, documents).await)
}

/// An error with the place that it is about: `, line 3, column 5: Unknown field …`.
pub fn sentence(error: &ServerError) -> String {
    let place = error.locations.first().map(|at| format!(", line {}, column {}", at.line, at.column)).unwrap_or_default();
    format!("{place}: {}", error.message)
}

/// After its operations.
fn name_of(document: &ParsedDocument) -> String {
    let names = document.operations().iter().filter_map(|operation| operation.name.as_deref()).collect();
    joined(names).unwrap_or_else(|| ANONYMOUS.to_owned())
}

fn joined<S: Borrow<str> + Ord>(mut names: Vec<S>) -> Option<String> {
    names.sort_unstable();
    (!names.is_empty()).then(|| names.join(", ").chars().take(MAX_NAME).collect())
}

/// The names of a text's operations, as far as they can be told of one that need not be GraphQL.
fn names_in(text: &str) -> Vec<String> {
    let parsed = ast::Document::parse(text, "document").unwrap_or_else(|broken| broken.partial);
    let names = parsed.definitions.iter().filter_map(|definition| definition.as_operation_definition()?.name.as_ref());
    names.map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_named_in_texts_that_nobody_can_parse() {
        for (text, names) in [
            ("query Metrics {\n  metrics { totl }\n}", &["Metrics"][..]),
            ("# query of all\nmutation\n  Add($q: String = \"x\") @live { add(query: \"a\") { query id } }", &["Add"]),
            ("query A { a } fragment F on Query { b } subscription B{ c }", &["A", "B"]),
            ("query Broken { me", &["Broken"]),
            ("query @skip(if: true) { me }", &[]),
            ("query { query Inner }", &[]),
            ("{ me }", &[]),
            ("nonsense", &[]),
        ] {
            assert_eq!(names_in(text), names, "{text}");
        }
    }

    #[test]
    fn a_refused_document_is_called_by_its_name() {
        let refused = |id: &str, name: Option<&str>| Refused {
            id: id.to_owned(),
            name: name.map(str::to_owned),
            errors: vec![ServerError::new("No", None)],
        };
        let good = |name: &str| NewDocument { document_id: "h0".to_owned(), name: name.to_owned(), text: String::new() };
        let told = |good: &[NewDocument], refused: &[Refused]| match refusal(good, refused) {
            Error::Invalid(problems) => problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>(),
            other => panic!("{other}"),
        };
        assert_eq!(told(&[good("B")], &[refused("h1", Some("A"))]), ["A: No"]);
        assert_eq!(told(&[good("A")], &[refused("h1", Some("A")), refused("h2", None)]), ["A (h1): No", "h2: No"]);
        assert_eq!(told(&[], &[refused("h1", None)]), ["anonymous: No"]);
    }
}
