//! Publishing a manifest: read it, hold each of its documents against the schema, store all or none.

use async_graphql::ServerError;
use mdl::actor::Permission;
use mdl::documents::{self, Caching, Document, MAX_NAME, NewDocument, manifest, store};
use mdl::error::{Code, Problem};
use mdl::{Actor, App, Error, Result};

use super::{ParsedDocument, Validator};

/// Problems that are told of one manifest: nobody reads more.
const MAX_PROBLEMS: usize = 100;

/// A published document that the schema refuses now, and in which words.
pub struct Outdated {
    pub document: Document,
    pub errors: Vec<ServerError>,
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
    let (mut new, mut problems) = (Vec::with_capacity(entries.len()), Vec::new());
    for manifest::Entry { id, name, text } in entries {
        match validator.check(&text).await {
            Ok(document) => {
                let name = name.unwrap_or_else(|| name_of(&document));
                new.push(NewDocument { document_id: id, name, text });
            }
            Err(errors) => {
                let name = name.unwrap_or(id);
                problems.extend(
                    errors.iter().map(|error| Problem::new("manifest", Code::Invalid, format!("{name}{}", sentence(error)))),
                );
            }
        }
        // Validating a long manifest must not keep other requests waiting.
        tokio::task::yield_now().await;
    }
    problems.truncate(MAX_PROBLEMS);
    if problems.is_empty() { documents::publish(app, actor, &new, caching).await } else { Err(Error::Invalid(problems)) }
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
    let mut names: Vec<&str> = document.operations().iter().filter_map(|operation| operation.name.as_deref()).collect();
    names.sort_unstable();
    match names.as_slice() {
        [] => "anonymous".to_owned(),
        names => names.join(", ").chars().take(MAX_NAME).collect(),
    }
}
