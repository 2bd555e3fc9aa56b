//! Whether the variables of a document have types that suit the places where they stand: "All Variable Usages Are Allowed" of
//! the specification, in the words of its reference implementation. async-graphql 8.0.0-rc.5 has this rule and never runs it;
//! apollo-compiler 1.33 does not look into lists and objects.

use async_graphql::ServerError;
use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet, VariableDefinition};
use async_graphql::registry::{MetaType, MetaTypeName, Registry};
use async_graphql_value::{ConstValue, Value};

use super::variables::{Place, Places};
use crate::graphql::executor::MAX_ERRORS;

/// The variables that stand where they may not, each with the places of its definition and of its use.
pub fn misplaced(document: &ExecutableDocument, places: &Places, registry: &Registry) -> Vec<ServerError> {
    let mut errors = Vec::new();
    for ((_, operation), own) in document.operations.iter().zip(&places.operations) {
        let mut fragments = Vec::new();
        spread(document, &operation.node.selection_set.node, &mut fragments);
        let of_fragments = fragments.into_iter().filter_map(|name| places.fragments.get(name)).flatten();
        for place in own.iter().chain(of_fragments) {
            for Usage { variable, ty, has_default } in usages(place, registry) {
                let mut definitions = operation.node.variable_definitions.iter();
                let Some(definition) = definitions.find(|definition| definition.node.name.node.as_str() == variable) else {
                    continue;
                };
                if may_stand(&definition.node, ty, has_default) {
                    continue;
                }
                let declared = &definition.node.var_type.node;
                let message =
                    format!("Variable \"${variable}\" of type \"{declared}\" used in position expecting type \"{ty}\".");
                let mut error = ServerError::new(message, Some(definition.pos));
                error.locations.push(place.at);
                if !errors.contains(&error) {
                    errors.push(error);
                    if errors.len() == MAX_ERRORS {
                        return errors;
                    }
                }
            }
        }
    }
    errors
}

/// The fragments that a selection spreads, itself or through others, each once.
pub fn spread<'a>(document: &'a ExecutableDocument, set: &'a SelectionSet, found: &mut Vec<&'a str>) {
    for selection in &set.items {
        match &selection.node {
            Selection::Field(field) => spread(document, &field.node.selection_set.node, found),
            Selection::InlineFragment(inline) => spread(document, &inline.node.selection_set.node, found),
            Selection::FragmentSpread(spreading) => {
                let name = spreading.node.fragment_name.node.as_str();
                if let Some(fragment) = document.fragments.get(name)
                    && !found.contains(&name)
                {
                    found.push(name);
                    spread(document, &fragment.node.selection_set.node, found);
                }
            }
        }
    }
}

/// A variable where it stands: an argument, or a part of one.
struct Usage<'a> {
    variable: &'a str,
    /// The type that is expected there.
    ty: &'a str,
    /// Whether the schema says what is meant there when nothing is given.
    has_default: bool,
}

fn usages<'a>(place: &'a Place, registry: &'a Registry) -> Vec<Usage<'a>> {
    let mut found = Vec::new();
    collect(registry, &place.value, &place.ty, place.has_default, &mut found);
    found
}

fn collect<'a>(registry: &'a Registry, value: &'a Value, ty: &'a str, has_default: bool, found: &mut Vec<Usage<'a>>) {
    match value {
        Value::Variable(name) => found.push(Usage { variable: name.as_str(), ty, has_default }),
        Value::List(values) => {
            let nullable = ty.strip_suffix('!').unwrap_or(ty);
            let entry = match MetaTypeName::create(nullable) {
                MetaTypeName::List(entry) => entry,
                _ => nullable,
            };
            values.iter().for_each(|value| collect(registry, value, entry, false, found));
        }
        Value::Object(values) => {
            // What stands in a scalar has no type.
            if let Some(MetaType::InputObject { input_fields, .. }) = registry.types.get(MetaTypeName::concrete_typename(ty)) {
                for (name, value) in values {
                    if let Some(field) = input_fields.get(name.as_str()) {
                        collect(registry, value, &field.ty, field.default_value.is_some(), found);
                    }
                }
            }
        }
        _ => {}
    }
}

/// Whether a variable may stand where this type is expected. A variable that may be null suits a place that may not when
/// either of the two has a default: the place's stands in for a variable without a value.
fn may_stand(definition: &VariableDefinition, ty: &str, has_default: bool) -> bool {
    let defined = definition.default_value.as_ref().is_some_and(|value| value.node != ConstValue::Null);
    let place = if defined || has_default { ty.strip_suffix('!').unwrap_or(ty) } else { ty };
    suits(&definition.var_type.node.to_string(), place)
}

/// Whether every value of one type is one of the other.
fn suits(variable: &str, place: &str) -> bool {
    match (MetaTypeName::create(variable), MetaTypeName::create(place)) {
        (MetaTypeName::NonNull(variable), MetaTypeName::NonNull(place)) => suits(variable, place),
        (_, MetaTypeName::NonNull(_)) => false,
        (MetaTypeName::NonNull(variable), _) => suits(variable, place),
        (MetaTypeName::List(variable), MetaTypeName::List(place)) => suits(variable, place),
        (MetaTypeName::Named(variable), MetaTypeName::Named(place)) => variable == place,
        _ => false,
    }
}
