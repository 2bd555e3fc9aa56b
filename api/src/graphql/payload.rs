//! What mutations answer: the thing they changed, or what the caller can mend.

/// Payload types: `Name { field: Type }`, each with the thing (null if nothing was changed) and `userErrors`.
macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident { $(#[$field_doc:meta])* $field:ident: $type:ty })+) => {$(
        $(#[$doc])*
        #[derive(async_graphql::SimpleObject)]
        pub struct $name {
            $(#[$field_doc])*
            pub $field: Option<$type>,
            /// What was wrong with the input. Empty if it was done.
            pub user_errors: Vec<$crate::graphql::error::UserError>,
        }

        impl $name {
            /// From the result of the operation. The selection below reads from a view that begins after it.
            fn answer<T>(result: mdl::Result<T>, wrap: impl FnOnce(T) -> $type) -> async_graphql::Result<Self> {
                let (value, user_errors) = $crate::graphql::error::split(result)?;
                Ok(Self { $field: value.map(wrap), user_errors })
            }
        }
    )+};
}
pub(crate) use payloads;
