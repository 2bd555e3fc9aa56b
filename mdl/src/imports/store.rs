//! Reads of imports, their issues and changes.

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};

use super::{Import, ImportChange, ImportIssue, ImportState, Severity};
use crate::error::Result;
use crate::ids::{ImportId, TenantId};
use crate::page::{Page, PageArgs};
use crate::schema::{import_changes, import_issues, imports};

/// Which imports are wanted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    pub states: Option<Vec<ImportState>>,
}

pub async fn by_id(mut conn: &AsyncPgConnection, tenant: TenantId, id: ImportId) -> Result<Option<Import>> {
    Ok(all(tenant).filter(imports::id.eq(id)).first(&mut conn).await.optional()?)
}

pub async fn by_ids(mut conn: &AsyncPgConnection, tenant: TenantId, ids: &[ImportId]) -> Result<Vec<Import>> {
    Ok(all(tenant).filter(imports::id.eq_any(ids)).load(&mut conn).await?)
}

/// One page, newest first. Ids grow with time, so the cursor is the id.
pub async fn page(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    filter: &Filter,
    args: &PageArgs<ImportId>,
) -> Result<Page<Import>> {
    let mut query = all(tenant);
    if let Some(states) = filter.states.clone() {
        query = query.filter(imports::state.eq_any(states));
    }
    if let Some(after) = args.after {
        query = query.filter(imports::id.lt(after));
    }
    if let Some(before) = args.before {
        query = query.filter(imports::id.gt(before));
    }
    query = if args.backward { query.order(imports::id.asc()) } else { query.order(imports::id.desc()) };
    let rows = query.limit(args.fetch()).load(&mut conn).await?;
    Ok(Page::from_rows(rows, args))
}

/// How many imports there are.
pub async fn count(mut conn: &AsyncPgConnection, tenant: TenantId, filter: &Filter) -> Result<i64> {
    let mut query = imports::table.filter(imports::tenant_id.eq(tenant)).select(count_star()).into_boxed();
    if let Some(states) = filter.states.clone() {
        query = query.filter(imports::state.eq_any(states));
    }
    Ok(query.first(&mut conn).await?)
}

/// One page of what was wrong in an import, in the order of finding. The cursor is the ordinal.
pub async fn issues(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    import: ImportId,
    severity: Option<Severity>,
    args: &PageArgs<i64>,
) -> Result<Page<ImportIssue>> {
    let mut query = import_issues::table
        .filter(import_issues::tenant_id.eq(tenant).and(import_issues::import_id.eq(import)))
        .select(ImportIssue::as_select())
        .into_boxed();
    if let Some(severity) = severity {
        query = query.filter(import_issues::severity.eq(severity));
    }
    if let Some(after) = args.after {
        query = query.filter(import_issues::ordinal.gt(after));
    }
    if let Some(before) = args.before {
        query = query.filter(import_issues::ordinal.lt(before));
    }
    query = if args.backward { query.order(import_issues::ordinal.desc()) } else { query.order(import_issues::ordinal.asc()) };
    let rows = query.limit(args.fetch()).load(&mut conn).await?;
    Ok(Page::from_rows(rows, args))
}

/// How many issues of an import are kept.
pub async fn count_issues(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    import: ImportId,
    severity: Option<Severity>,
) -> Result<i64> {
    let mut query = import_issues::table
        .filter(import_issues::tenant_id.eq(tenant).and(import_issues::import_id.eq(import)))
        .select(count_star())
        .into_boxed();
    if let Some(severity) = severity {
        query = query.filter(import_issues::severity.eq(severity));
    }
    Ok(query.first(&mut conn).await?)
}

/// One page of what a dry run would change, in the order of the file. The cursor is the ordinal.
pub async fn changes(
    mut conn: &AsyncPgConnection,
    tenant: TenantId,
    import: ImportId,
    args: &PageArgs<i64>,
) -> Result<Page<ImportChange>> {
    let mut query = import_changes::table
        .filter(import_changes::tenant_id.eq(tenant).and(import_changes::import_id.eq(import)))
        .select(ImportChange::as_select())
        .into_boxed();
    if let Some(after) = args.after {
        query = query.filter(import_changes::ordinal.gt(after));
    }
    if let Some(before) = args.before {
        query = query.filter(import_changes::ordinal.lt(before));
    }
    query = if args.backward { query.order(import_changes::ordinal.desc()) } else { query.order(import_changes::ordinal.asc()) };
    let rows = query.limit(args.fetch()).load(&mut conn).await?;
    Ok(Page::from_rows(rows, args))
}

/// How many changes of a dry run are kept.
pub async fn count_changes(mut conn: &AsyncPgConnection, tenant: TenantId, import: ImportId) -> Result<i64> {
    Ok(import_changes::table
        .filter(import_changes::tenant_id.eq(tenant).and(import_changes::import_id.eq(import)))
        .select(count_star())
        .first(&mut conn)
        .await?)
}

fn all(
    tenant: TenantId,
) -> imports::BoxedQuery<'static, diesel::pg::Pg, diesel::dsl::SqlTypeOf<diesel::dsl::AsSelect<Import, diesel::pg::Pg>>> {
    imports::table.filter(imports::tenant_id.eq(tenant)).select(Import::as_select()).into_boxed()
}
