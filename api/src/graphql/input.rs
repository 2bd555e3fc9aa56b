//! Helpers for inputs that change only what they name: left out means unchanged, `null` means cleared.

use async_graphql::{InputType, MaybeUndefined};

/// A field that has a value in any case; `null` makes it the default.
pub fn put<T: Default>(slot: &mut T, value: MaybeUndefined<T>) {
    match value {
        MaybeUndefined::Value(value) => *slot = value,
        MaybeUndefined::Null => *slot = T::default(),
        MaybeUndefined::Undefined => {}
    }
}

/// As [`put`], for values that the schema has a type of its own for.
pub fn put_as<T: Default, I: Into<T>>(slot: &mut T, value: MaybeUndefined<I>) {
    put(slot, converted(value));
}

/// A field that may be without a value.
pub fn put_some<T: InputType>(slot: &mut Option<T>, value: MaybeUndefined<T>) {
    value.update_to(slot);
}

/// As [`put_some`], for values that the schema has a type of its own for.
pub fn put_some_as<T, I: Into<T>>(slot: &mut Option<T>, value: MaybeUndefined<I>) {
    match value {
        MaybeUndefined::Value(value) => *slot = Some(value.into()),
        MaybeUndefined::Null => *slot = None,
        MaybeUndefined::Undefined => {}
    }
}

/// A list, replaced as a whole.
pub fn put_list<T, I: Into<T>>(slot: &mut Vec<T>, value: MaybeUndefined<Vec<I>>) {
    match value {
        MaybeUndefined::Value(list) => *slot = list.into_iter().map(Into::into).collect(),
        MaybeUndefined::Null => slot.clear(),
        MaybeUndefined::Undefined => {}
    }
}

/// A group of fields, merged with what is there.
pub fn put_group<T, I>(group: &mut T, value: MaybeUndefined<I>, clear: impl FnOnce(&mut T), apply: impl FnOnce(I, &mut T)) {
    match value {
        MaybeUndefined::Value(value) => apply(value, group),
        MaybeUndefined::Null => clear(group),
        MaybeUndefined::Undefined => {}
    }
}

fn converted<T, I: Into<T>>(value: MaybeUndefined<I>) -> MaybeUndefined<T> {
    match value {
        MaybeUndefined::Value(value) => MaybeUndefined::Value(value.into()),
        MaybeUndefined::Null => MaybeUndefined::Null,
        MaybeUndefined::Undefined => MaybeUndefined::Undefined,
    }
}
