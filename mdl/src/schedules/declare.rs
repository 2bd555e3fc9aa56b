//! What the workers have by the clock, as the database is told of it.

use diesel::dsl::{now, sql};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use tracing::warn;

use super::{Definition, Schedule};
use crate::db::Db;
use crate::error::Result;
use crate::schema::schedules;
use crate::tenants::SYSTEM;

/// Makes the database's schedules those of this table. A new or changed one does not make up for times before now. One that is not
/// in the table stays while a worker of another version may have it. The log tells whose times are not those that another worker has.
pub async fn declare(db: &Db, table: &[Definition]) -> Result<()> {
    let tx = db.begin(SYSTEM).await?;
    let declared = schedules::table
        .filter(schedules::tenant_id.eq(SYSTEM))
        .filter(sql::<Bool>("declared_at > now() - interval '2 minutes'"))
        .select(Schedule::as_select());
    let others: Vec<Schedule> = declared.load(&mut &*tx).await?;
    for definition in table {
        let row = (
            schedules::tenant_id.eq(SYSTEM),
            schedules::name.eq(definition.name),
            (schedules::description.eq(definition.description), schedules::enabled.eq(definition.enabled)),
            schedules::expression.eq(definition.timing.expression()),
            schedules::time_zone.eq(definition.timing.zone().name()),
            (schedules::overlap.eq(definition.overlap), schedules::catch_up.eq(definition.catch_up)),
            (schedules::queue.eq(definition.job.queue), schedules::kind.eq(definition.job.kind)),
            (schedules::payload.eq(&definition.job.payload), schedules::max_attempts.eq(definition.job.max_attempts)),
        );
        let changed = schedules::expression
            .ne(excluded(schedules::expression))
            .or(schedules::time_zone.ne(excluded(schedules::time_zone)))
            .or(schedules::enabled.ne(excluded(schedules::enabled)));
        diesel::insert_into(schedules::table)
            .values(row)
            .on_conflict((schedules::tenant_id, schedules::name))
            .do_update()
            .set((
                schedules::description.eq(excluded(schedules::description)),
                schedules::since.eq(diesel::dsl::case_when(changed, now.into_sql::<Timestamptz>()).otherwise(schedules::since)),
                schedules::expression.eq(excluded(schedules::expression)),
                schedules::time_zone.eq(excluded(schedules::time_zone)),
                (schedules::overlap.eq(excluded(schedules::overlap)), schedules::catch_up.eq(excluded(schedules::catch_up))),
                schedules::enabled.eq(excluded(schedules::enabled)),
                (schedules::queue.eq(excluded(schedules::queue)), schedules::kind.eq(excluded(schedules::kind))),
                schedules::payload.eq(excluded(schedules::payload)),
                schedules::max_attempts.eq(excluded(schedules::max_attempts)),
                schedules::declared_at.eq(now),
            ))
            .execute(&mut &*tx)
            .await?;
    }
    let names: Vec<_> = table.iter().map(|definition| definition.name).collect();
    let unknown = schedules::table.filter(schedules::tenant_id.eq(SYSTEM).and(schedules::name.ne_all(names)));
    diesel::delete(unknown.filter(sql::<Bool>("declared_at < now() - interval '1 day'"))).execute(&mut &*tx).await?;
    tx.commit().await?;
    for definition in table {
        if let Some((before, after)) = others.iter().find_map(|other| replaced(other, definition)) {
            let schedule = definition.name;
            warn!(schedule, before, after, "This worker's settings replace those of another worker: all of them need the same");
        }
    }
    Ok(())
}

/// When a schedule ran, and when it does now, if a definition changes that.
fn replaced(before: &Schedule, definition: &Definition) -> Option<(String, String)> {
    fn times(enabled: bool, expression: &str, zone: &str) -> String {
        if enabled { format!("{expression} {zone}") } else { "off".to_owned() }
    }
    let timing = &definition.timing;
    let old = times(before.enabled, &before.expression, &before.time_zone);
    let new = times(definition.enabled, timing.expression(), timing.zone().name());
    (before.name == definition.name && old != new).then_some((old, new))
}

/// Says that a worker has these schedules. What they are is left as it is, because another version may have declared it since; but
/// when one is missing, which an older version may have removed, all are declared.
pub async fn declare_again(db: &Db, table: &[Definition]) -> Result<()> {
    let names: Vec<_> = table.iter().map(|definition| definition.name).collect();
    let tx = db.begin(SYSTEM).await?;
    let there = diesel::update(schedules::table.filter(schedules::tenant_id.eq(SYSTEM).and(schedules::name.eq_any(names))))
        .set(schedules::declared_at.eq(now))
        .execute(&mut &*tx)
        .await?;
    tx.commit().await?;
    if there < table.len() { declare(db, table).await } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use serde_json::Value;

    use super::*;
    use crate::jobs::RawJob;
    use crate::schedules::{CatchUp, Overlap};

    #[test]
    fn a_worker_with_other_settings_is_noticed() {
        let definition = |timing: &str, enabled| Definition {
            name: "back_up",
            description: "",
            timing: timing.parse().unwrap(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::Once,
            enabled,
            job: RawJob { queue: "backups", kind: "back_up", payload: Value::Null, max_attempts: 1 },
        };
        let before = Schedule {
            name: "back_up".to_owned(),
            description: String::new(),
            expression: "0 2 * * *".to_owned(),
            time_zone: "UTC".to_owned(),
            overlap: Overlap::Skip,
            catch_up: CatchUp::Once,
            enabled: true,
            queue: "backups".to_owned(),
            kind: "back_up".to_owned(),
            payload: Value::Null,
            max_attempts: 1,
            since: Utc::now(),
            paused_at: None,
        };
        assert_eq!(replaced(&before, &definition("0 2 * * *", true)), None);
        let off = replaced(&before, &definition("0 2 * * *", false));
        assert_eq!(off, Some(("0 2 * * * UTC".to_owned(), "off".to_owned())));
        let (_, after) = replaced(&before, &definition("30 1 * * * Europe/Berlin", true)).unwrap();
        assert_eq!(after, "30 1 * * * Europe/Berlin");
    }
}
