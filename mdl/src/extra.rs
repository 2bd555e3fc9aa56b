//! Fields of an imported file that the model has no place for. They are kept as they came: an import loses nothing.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::text::Problems;

/// Such fields, under their own names.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Jsonb)]
#[serde(transparent)]
pub struct Extra(pub Map<String, Value>);

crate::text::jsonb!(Extra);

impl Extra {
    /// Most bytes that the fields of one entry take as JSON.
    pub const MAX: usize = 256 * 1024;

    /// Everything that is wrong with the fields, which may take `max` bytes as JSON.
    pub fn check(&self, problems: &mut Problems, max: usize) {
        self.check_levels(problems);
        problems.json("extra", "The extra fields take", self, max);
    }

    /// Whether one is nested too deeply.
    pub fn check_levels(&self, problems: &mut Problems) {
        for (name, value) in &self.0 {
            problems.levels("extra", format_args!("The extra field {name:?} is"), value);
        }
    }
}
