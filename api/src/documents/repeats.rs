//! Whether the answer of a document has to be merged from parts.

use std::collections::{HashMap, HashSet};

use async_graphql::parser::types::{ExecutableDocument, Selection, SelectionSet};

/// Whether a selection has two fields of one name, itself or through fragments: `{ a { b } a { c } }`, which are parts of one
/// value. Fragments count whatever type they are for. The document keeps to the limits, so no fragment is part of itself.
pub fn repeats(document: &ExecutableDocument) -> bool {
    let mut reader = Reader { document, fragments: HashMap::new(), found: false };
    for (_, operation) in document.operations.iter() {
        reader.read(&operation.node.selection_set.node);
    }
    reader.found
}

struct Reader<'a> {
    document: &'a ExecutableDocument,
    /// The names that each fragment selects.
    fragments: HashMap<&'a str, Vec<&'a str>>,
    found: bool,
}

impl<'a> Reader<'a> {
    fn read(&mut self, set: &'a SelectionSet) {
        let mut names = Vec::with_capacity(set.items.len());
        self.collect(set, &mut names);
        let mut seen = HashSet::new();
        self.found |= !names.into_iter().all(|name| seen.insert(name));
    }

    fn collect(&mut self, set: &'a SelectionSet, names: &mut Vec<&'a str>) {
        for selection in &set.items {
            match &selection.node {
                Selection::Field(field) => {
                    names.push(field.node.response_key().node.as_str());
                    self.read(&field.node.selection_set.node);
                }
                Selection::InlineFragment(inline) => self.collect(&inline.node.selection_set.node, names),
                Selection::FragmentSpread(spread) => {
                    let name = spread.node.fragment_name.node.as_str();
                    if !self.fragments.contains_key(name) {
                        let mut selected = Vec::new();
                        // What does not exist is refused later.
                        if let Some(fragment) = self.document.fragments.get(name) {
                            self.collect(&fragment.node.selection_set.node, &mut selected);
                        }
                        self.fragments.insert(name, selected);
                    }
                    names.extend_from_slice(&self.fragments[name]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_query;

    use super::*;

    #[test]
    fn finds_what_is_named_twice() {
        for (text, expected) in [
            ("{ a b: a c { a b } }", false),
            ("{ a a }", true),
            ("{ a { b } c: a { b } }", false),
            ("{ a { b } a { c } }", true),
            ("{ c { a { b d: b b } } }", true),
            ("{ a ... { b } }", false),
            ("{ a ... { a } }", true),
            ("{ a { ...F } b { ...F } } fragment F on T { x ...G } fragment G on T { y }", false),
            ("{ a { ...F y } } fragment F on T { x ...G } fragment G on T { y }", true),
            ("{ a { ...F ...F } } fragment F on T { x }", true),
            ("{ a { ...F } } fragment F on T { x { y y } }", true),
            ("query A { a } query B { a }", false),
            ("{ ...Missing }", false),
        ] {
            assert_eq!(repeats(&parse_query(text).unwrap()), expected, "{text}");
        }
    }
}
