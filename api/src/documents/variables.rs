//! Whether variables fit the places of a document where they stand.
//!
//! Of the rules of the strict validation only one looks at the values of variables: that each argument, its variables filled
//! in, is of the argument's type. This rule is applied here at every request. The strict validation says in which words it was
//! broken, and takes several times as long as this; this only says "it fits", or else "ask the strict validation". That takes any
//! text for a date, so [`dates`] are looked at besides.

use std::collections::HashMap;
use std::convert::Infallible;

use async_graphql::parser::types::{ExecutableDocument, OperationType, Selection, SelectionSet};
use async_graphql::registry::{MetaInputValue, MetaType, MetaTypeName, Registry};
use async_graphql::{Pos, Positioned, ServerError, Variables};
use async_graphql_value::{ConstValue, Value};

use super::dates;
use super::misplaced::spread;
use crate::graphql::executor::MAX_ERRORS;

/// The arguments of a document that have variables in them.
pub struct Places {
    /// Of each operation, in the order of the document.
    pub(super) operations: Vec<Vec<Place>>,
    /// By name.
    pub(super) fragments: HashMap<String, Vec<Place>>,
    /// The fragments of each operation.
    spread: Vec<Vec<String>>,
    /// What stands in the document for a date and is none.
    wrong: Vec<ServerError>,
}

/// An argument with variables, and its type as the registry spells it.
pub(super) struct Place {
    name: String,
    pub(super) ty: String,
    pub(super) value: Value,
    pub(super) at: Pos,
    /// Whether the schema has a value for the argument when none is given.
    pub(super) has_default: bool,
}

impl Places {
    /// Finds them. `None` when something is not found in the schema: then nothing is known of this document.
    pub fn find(document: &ExecutableDocument, registry: &Registry) -> Option<Self> {
        let root = |kind| match kind {
            OperationType::Query => Some(&registry.query_type),
            OperationType::Mutation => registry.mutation_type.as_ref(),
            OperationType::Subscription => registry.subscription_type.as_ref(),
        };
        let mut wrong = Vec::new();
        let mut within = |root: &str, set: &SelectionSet| {
            let mut finder = Finder { registry, found: Vec::new(), wrong: Vec::new() };
            finder.selections(registry.types.get(root)?, set)?;
            wrong.append(&mut finder.wrong);
            Some(finder.found)
        };
        let operations = document.operations.iter();
        let operations = operations.map(|(_, operation)| within(root(operation.node.ty)?, &operation.node.selection_set.node));
        let operations = operations.collect::<Option<_>>()?;
        let fragments = document.fragments.iter().map(|(name, fragment)| {
            let found = within(&fragment.node.type_condition.node.on.node, &fragment.node.selection_set.node)?;
            Some((name.to_string(), found))
        });
        let fragments = fragments.collect::<Option<_>>()?;
        for definition in document.operations.iter().flat_map(|(_, operation)| &operation.node.variable_definitions) {
            let definition = &definition.node;
            if let Some(default) = &definition.default_value {
                let (name, ty) = (&definition.name.node, definition.var_type.node.to_string());
                wrong.extend(error(dates::wrong(registry, name, &ty, &default.node), default.pos));
            }
        }
        let spread = document.operations.iter().map(|(_, operation)| {
            let mut found = Vec::new();
            spread(document, &operation.node.selection_set.node, &mut found);
            found.into_iter().map(str::to_owned).collect()
        });
        Some(Self { operations, fragments, spread: spread.collect(), wrong })
    }

    /// Whether the values of these variables are surely right for an operation.
    pub fn accept(&self, operation: usize, variables: &Variables, registry: &Registry) -> bool {
        self.wrong.is_empty() && self.of(operation).all(|place| place.accepts(variables, registry))
    }

    /// The dates of an operation and its variables that are none.
    pub fn wrong_dates(&self, operation: usize, variables: &Variables, registry: &Registry) -> Vec<ServerError> {
        let given = self.of(operation).filter_map(|place| error(place.wrong_date(variables, registry), place.at));
        self.wrong.iter().cloned().chain(given).take(MAX_ERRORS).collect()
    }

    fn of(&self, operation: usize) -> impl Iterator<Item = &Place> {
        let fragments = self.spread[operation].iter().filter_map(|name| self.fragments.get(name)).flatten();
        self.operations[operation].iter().chain(fragments)
    }
}

fn error(message: Option<String>, at: Pos) -> Option<ServerError> {
    message.map(|message| ServerError::new(message, Some(at)))
}

impl Place {
    fn accepts(&self, variables: &Variables, registry: &Registry) -> bool {
        match &self.value {
            // Of an argument with a variable that is not given, the rule says nothing.
            Value::Variable(name) => variables.get(name).is_none_or(|value| conforms(registry, &self.ty, value)),
            _ => match self.filled(variables) {
                Some(value) => conforms(registry, &self.ty, &value),
                None => self.wrong_date(variables, registry).is_none(),
            },
        }
    }

    /// Says which date in it is none. Variables without a value count as null, which is no wrong date.
    fn wrong_date(&self, variables: &Variables, registry: &Registry) -> Option<String> {
        let value = self
            .value
            .clone()
            .into_const_with(|name| Ok::<_, Infallible>(variables.get(&name).cloned().unwrap_or(ConstValue::Null)));
        dates::wrong(registry, &self.name, &self.ty, &value.unwrap_or_default())
    }

    /// Its value, if all of its variables have one.
    fn filled(&self, variables: &Variables) -> Option<ConstValue> {
        self.value.clone().into_const_with(|name| variables.get(&name).cloned().ok_or(())).ok()
    }
}

/// Walks through a document beside the types of the schema.
struct Finder<'a> {
    registry: &'a Registry,
    found: Vec<Place>,
    wrong: Vec<ServerError>,
}

impl Finder<'_> {
    /// `None` when a name is not in the schema.
    fn selections(&mut self, parent: &MetaType, set: &SelectionSet) -> Option<()> {
        for selection in &set.items {
            for directive in selection.node.directives() {
                let known = self.registry.directives.get(directive.node.name.node.as_str())?;
                for (name, value) in &directive.node.arguments {
                    self.argument(known.args.get(name.node.as_str())?, value);
                }
            }
            match &selection.node {
                Selection::Field(field) if field.node.name.node == "__typename" => {}
                Selection::Field(field) => {
                    let known = parent.field_by_name(&field.node.name.node)?;
                    for (name, value) in &field.node.arguments {
                        self.argument(known.args.get(name.node.as_str())?, value);
                    }
                    let ty = self.registry.types.get(MetaTypeName::concrete_typename(&known.ty))?;
                    self.selections(ty, &field.node.selection_set.node)?;
                }
                Selection::InlineFragment(inline) => {
                    let ty = match &inline.node.type_condition {
                        Some(condition) => self.registry.types.get(condition.node.on.node.as_str())?,
                        None => parent,
                    };
                    self.selections(ty, &inline.node.selection_set.node)?;
                }
                Selection::FragmentSpread(_) => {}
            }
        }
        Some(())
    }

    fn argument(&mut self, argument: &MetaInputValue, value: &Positioned<Value>) {
        let (name, ty, at) = (argument.name.clone(), argument.ty.clone(), value.pos);
        match value.node.clone().into_const() {
            // Without a variable it is looked at once and for all.
            Some(literal) => self.wrong.extend(error(dates::wrong(self.registry, &name, &ty, &literal), at)),
            None => {
                let has_default = argument.default_value.is_some();
                self.found.push(Place { name, ty, value: value.node.clone(), at, has_default });
            }
        }
    }
}

/// Whether a value is surely of this type, which is spelled as in the registry: `[Int!]!`.
fn conforms(registry: &Registry, ty: &str, value: &ConstValue) -> bool {
    match MetaTypeName::create(ty) {
        MetaTypeName::NonNull(ty) => *value != ConstValue::Null && conforms(registry, ty, value),
        _ if *value == ConstValue::Null => true,
        MetaTypeName::List(entry) => match value {
            ConstValue::List(values) => values.iter().all(|value| conforms(registry, entry, value)),
            // One value stands for a list of it.
            value => conforms(registry, entry, value),
        },
        MetaTypeName::Named(name) => conforms_to_named(registry, name, value),
    }
}

/// Of a value that is not null.
fn conforms_to_named(registry: &Registry, name: &str, value: &ConstValue) -> bool {
    match (registry.types.get(name), value) {
        (Some(MetaType::Scalar { is_valid, .. }), value) => {
            is_valid.as_ref().is_none_or(|is_valid| is_valid(value)) && dates::is_right(name, value)
        }
        (Some(MetaType::Enum { enum_values, .. }), ConstValue::Enum(name)) => enum_values.contains_key(name.as_str()),
        (Some(MetaType::Enum { enum_values, .. }), ConstValue::String(name)) => enum_values.contains_key(name),
        // Of a "one of" the strict validation knows more.
        (Some(MetaType::InputObject { input_fields, oneof: false, .. }), ConstValue::Object(values)) => {
            values.keys().all(|key| input_fields.contains_key(key.as_str()))
                && input_fields.values().all(|field| match values.get(field.name.as_str()) {
                    Some(value) => conforms(registry, &field.ty, value),
                    None => field.default_value.is_some() || !MetaTypeName::create(&field.ty).is_non_null(),
                })
        }
        _ => false,
    }
}
