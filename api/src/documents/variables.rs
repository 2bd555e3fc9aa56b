//! Whether the values of variables are of their types.
//!
//! The strict validation says so, too, and in which words; it costs five times what executing a small document does. This
//! only says yes or "ask the strict validation", so it may be wrong in one direction.

use std::convert::Infallible;

use async_graphql::parser::types::{BaseType, ExecutableDocument, Selection, SelectionSet, Type};
use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql::{Name, Value};

/// Whether a value is surely of this type.
pub fn conforms(registry: &Registry, ty: &Type, value: &Value) -> bool {
    match (&ty.base, value) {
        (_, Value::Null) => ty.nullable,
        (BaseType::List(entry), Value::List(values)) => values.iter().all(|value| conforms(registry, entry, value)),
        // One value stands for a list of it.
        (BaseType::List(entry), value) => conforms(registry, entry, value),
        (BaseType::Named(name), value) => conforms_to_named(registry, name, value),
    }
}

/// As [`conforms`], for a type as the registry spells it: `[Int!]!`.
fn conforms_to(registry: &Registry, ty: &str, value: &Value) -> bool {
    match MetaTypeName::create(ty) {
        MetaTypeName::NonNull(ty) => *value != Value::Null && conforms_to(registry, ty, value),
        _ if *value == Value::Null => true,
        MetaTypeName::List(entry) => match value {
            Value::List(values) => values.iter().all(|value| conforms_to(registry, entry, value)),
            value => conforms_to(registry, entry, value),
        },
        MetaTypeName::Named(name) => conforms_to_named(registry, name, value),
    }
}

/// Of a value that is not null.
fn conforms_to_named(registry: &Registry, name: &str, value: &Value) -> bool {
    match (registry.types.get(name), value) {
        (Some(MetaType::Scalar { is_valid, .. }), value) => is_valid.as_ref().is_none_or(|is_valid| is_valid(value)),
        (Some(MetaType::Enum { enum_values, .. }), Value::Enum(name)) => enum_values.contains_key(name.as_str()),
        (Some(MetaType::Enum { enum_values, .. }), Value::String(name)) => enum_values.contains_key(name),
        // Of a "one of" the strict validation knows more.
        (Some(MetaType::InputObject { input_fields, oneof: false, .. }), Value::Object(values)) => {
            let required = |ty: &str| MetaTypeName::create(ty).is_non_null();
            values.keys().all(|key| input_fields.contains_key(key.as_str()))
                && input_fields.values().all(|field| match values.get(field.name.as_str()) {
                    Some(value) => conforms_to(registry, &field.ty, value),
                    None => field.default_value.is_some() || !required(&field.ty),
                })
        }
        _ => false,
    }
}

/// The variables that stand within a list or an object, in the arguments of fields and directives.
pub fn nested_variables(document: &ExecutableDocument) -> Vec<Name> {
    let mut found = Vec::new();
    for (_, operation) in document.operations.iter() {
        in_selections(&operation.node.selection_set.node, &mut found);
    }
    for fragment in document.fragments.values() {
        in_selections(&fragment.node.selection_set.node, &mut found);
    }
    found
}

fn in_selections(set: &SelectionSet, found: &mut Vec<Name>) {
    for selection in &set.items {
        let directives = selection.node.directives().iter().flat_map(|directive| &directive.node.arguments);
        let arguments = match &selection.node {
            Selection::Field(field) => &field.node.arguments[..],
            Selection::InlineFragment(_) | Selection::FragmentSpread(_) => &[],
        };
        for (_, value) in arguments.iter().chain(directives) {
            let mut names = Vec::new();
            let filled = value.node.clone().into_const_with(|name| {
                names.push(name);
                Ok::<_, Infallible>(Value::Null)
            });
            // An argument that is a variable itself became null.
            if let Ok(Value::List(_) | Value::Object(_)) = filled {
                found.extend(names);
            }
        }
        match &selection.node {
            Selection::Field(field) => in_selections(&field.node.selection_set.node, found),
            Selection::InlineFragment(inline) => in_selections(&inline.node.selection_set.node, found),
            Selection::FragmentSpread(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn finds_variables_within_arguments() {
        let text = "query ($a: A, $b: B) { x(a: $a, l: [1, $b]) @include(if: $c) { ... on Y { z(o: { p: { q: $d } }) } ...F } }
             fragment F on Y { w(e: [[$e]]) }";
        let mut names: Vec<_> = nested_variables(&parse_query(text).unwrap()).iter().map(ToString::to_string).collect();
        names.sort();
        assert_eq!(names, ["b", "d", "e"]);
    }
}
