//! Which columns of metrics a read wants: pages of them need not drag along what nobody looks at.

use std::sync::{Arc, LazyLock};

use diesel::dsl::{AsSelect, SqlTypeOf};
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};

use super::store::Row;
use super::{Details, Metric};
use crate::schema::metrics;

/// A set of columns, by groups, so that there are few statements to prepare. Of a group that is not wanted a row has NULL, or an
/// empty text or list. What says which metric it is and when it changed, and whatever is short, is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Columns(u8);

impl Columns {
    /// What is always there.
    pub const NONE: Self = Self(0);
    /// Category, indicator kind, short name and tags.
    pub const LABELS: Self = Self(1);
    pub const DESCRIPTION: Self = Self(1 << 1);
    /// Formula, unit, expected direction and synonyms.
    pub const DEFINITION: Self = Self(1 << 2);
    /// Owners and data classification.
    pub const GOVERNANCE: Self = Self(1 << 3);
    pub const DETAILS: Self = Self(1 << 4);
    /// All but the details.
    pub const ROW: Self = Self::LABELS.and(Self::DESCRIPTION).and(Self::DEFINITION).and(Self::GOVERNANCE);
    pub const ALL: Self = Self::ROW.and(Self::DETAILS);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These, and the others if `really`.
    pub fn and_if(self, really: bool, others: Self) -> Self {
        if really { self.and(others) } else { self }
    }

    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// As SQL.
    fn text(self) -> &'static str {
        static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| (0..=Columns::ALL.0).map(|bits| Columns(bits).write()).collect());
        &TEXTS[usize::from(self.0)]
    }

    fn write(self) -> String {
        let columns = COLUMNS.iter().map(|(group, name, instead)| match self.has(*group) {
            true => format!("\"metrics\".\"{name}\""),
            false => (*instead).to_owned(),
        });
        columns.collect::<Vec<_>>().join(", ")
    }
}

/// A metric's columns in the order of [`Metric`], then the details: the group, the name, and what stands in place of it.
const COLUMNS: [(Columns, &str, &str); 32] = [
    (Columns::NONE, "tenant_id", ""),
    (Columns::NONE, "id", ""),
    (Columns::NONE, "key", ""),
    (Columns::NONE, "name", ""),
    (Columns::LABELS, "short_name", "NULL"),
    (Columns::DESCRIPTION, "description", "''"),
    (Columns::LABELS, "category", "NULL"),
    (Columns::NONE, "tier", ""),
    (Columns::NONE, "domain_id", ""),
    (Columns::LABELS, "indicator_kind", "NULL"),
    (Columns::NONE, "metric_type", ""),
    (Columns::NONE, "status", ""),
    (Columns::LABELS, "tags", "'{}'::text[]"),
    (Columns::DEFINITION, "synonyms", "'{}'::text[]"),
    (Columns::DEFINITION, "formula", "NULL"),
    (Columns::DEFINITION, "unit", "NULL"),
    (Columns::DEFINITION, "expected_direction", "NULL"),
    (Columns::GOVERNANCE, "owner_team", "NULL"),
    (Columns::GOVERNANCE, "technical_owner", "NULL"),
    (Columns::GOVERNANCE, "business_owner", "NULL"),
    (Columns::GOVERNANCE, "data_classification", "NULL"),
    (Columns::NONE, "pii_involved", ""),
    (Columns::NONE, "version_major", ""),
    (Columns::NONE, "version_minor", ""),
    (Columns::NONE, "version_patch", ""),
    (Columns::NONE, "revision", ""),
    (Columns::NONE, "created_at", ""),
    (Columns::NONE, "created_by", ""),
    (Columns::NONE, "updated_at", ""),
    (Columns::NONE, "updated_by", ""),
    (Columns::NONE, "archived_at", ""),
    (Columns::DETAILS, "details", "NULL::jsonb"),
];

/// What [`Columns`] select.
#[derive(Queryable, Selectable)]
#[diesel(table_name = metrics, check_for_backend(Pg))]
pub struct Selected {
    #[diesel(embed)]
    pub metric: Metric,
    #[diesel(select_expression = metrics::details.nullable())]
    pub details: Option<Details>,
}

impl From<Selected> for Row {
    fn from(Selected { metric, details }: Selected) -> Self {
        (Arc::new(metric), details.map(Arc::new))
    }
}

impl Expression for Columns {
    type SqlType = SqlTypeOf<AsSelect<Selected, Pg>>;
}

impl<From> AppearsOnTable<From> for Columns {}

impl<From> SelectableExpression<From> for Columns {}

impl<GroupBy> ValidGrouping<GroupBy> for Columns {
    type IsAggregate = is_aggregate::No;
}

impl QueryId for Columns {
    type QueryId = ();
    // Prepared by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for Columns {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql(self.text());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use diesel::debug_query;

    use super::*;

    #[test]
    fn they_are_those_of_a_metric_in_its_order() {
        let (all, selected) = (metrics::table.select(Columns::ALL), metrics::table.select(Selected::as_select()));
        assert_eq!(debug_query::<Pg, _>(&all).to_string(), debug_query::<Pg, _>(&selected).to_string());
    }

    #[test]
    fn what_is_not_wanted_is_not_read() {
        let text = Columns::DESCRIPTION.text();
        assert!(text.contains("\"description\"") && text.contains("\"key\"") && text.ends_with("NULL::jsonb"));
        assert!(!text.contains("\"formula\"") && !text.contains("\"owner_team\"") && !text.contains("\"tags\""));
        assert!(Columns::ALL.has(Columns::ROW) && !Columns::ROW.has(Columns::ALL));
    }
}
