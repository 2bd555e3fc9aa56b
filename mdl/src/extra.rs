//! Fields of an imported file that the model has no place for. They are kept as they came: an import loses nothing.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Such fields, under their own names.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(transparent)]
pub struct Extra(pub Map<String, Value>);

crate::text::jsonb!(Extra);
