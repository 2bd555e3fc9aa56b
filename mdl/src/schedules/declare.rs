//! What the workers have by the clock, as the database is told of it.

use diesel::dsl::{now, sql};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;

use super::{Definition, Schedule};
use crate::db::Db;
use crate::error::Result;
use crate::schema::schedules;
use crate::tenants::SYSTEM;

/// A schedule that another worker has declared since with other times: all of them need the same settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub schedule: &'static str,
    /// When it runs by this worker's settings, and when it does.
    pub ours: String,
    pub theirs: String,
}

/// Makes the database's schedules those of this table. A new or changed one does not make up for times before now. One that is not
/// in the table stays while a worker of another version may have it.
///
/// Whose times it replaces is not known here: those of another worker, which then hears of it by [`declare_again`], or this worker's own from
/// before it was restarted.
pub async fn declare(db: &Db, table: &[Definition]) -> Result<()> {
    let tx = db.begin(SYSTEM).await?;
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
    tx.commit().await
}

/// Says that a worker has these schedules. What they are is left as it is, because another version may have declared it since, and those are
/// returned whose times another worker has replaced. When one is missing, which an older version may have removed, all are declared.
pub async fn declare_again(db: &Db, table: &[Definition]) -> Result<Vec<Replaced>> {
    let names: Vec<_> = table.iter().map(|definition| definition.name).collect();
    let tx = db.begin(SYSTEM).await?;
    let there: Vec<Schedule> =
        diesel::update(schedules::table.filter(schedules::tenant_id.eq(SYSTEM).and(schedules::name.eq_any(names))))
            .set(schedules::declared_at.eq(now))
            .returning(Schedule::as_returning())
            .get_results(&mut &*tx)
            .await?;
    tx.commit().await?;
    if there.len() < table.len() {
        declare(db, table).await?;
        return Ok(Vec::new());
    }
    Ok(table.iter().filter_map(|definition| there.iter().find_map(|schedule| replaced(definition, schedule))).collect())
}

/// Whether a schedule is this one, with other times.
fn replaced(definition: &Definition, schedule: &Schedule) -> Option<Replaced> {
    fn times(enabled: bool, expression: &str, zone: &str) -> String {
        if enabled { format!("{expression} {zone}") } else { "off".to_owned() }
    }
    let timing = &definition.timing;
    let ours = times(definition.enabled, timing.expression(), timing.zone().name());
    let theirs = times(schedule.enabled, &schedule.expression, &schedule.time_zone);
    let is_replaced = schedule.name == definition.name && ours != theirs;
    is_replaced.then_some(Replaced { schedule: definition.name, ours, theirs })
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
        let declared = Schedule {
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
        assert_eq!(replaced(&definition("0 2 * * *", true), &declared), None);
        let off = replaced(&definition("0 2 * * *", false), &declared).unwrap();
        assert_eq!((off.ours.as_str(), off.theirs.as_str()), ("off", "0 2 * * * UTC"));
        let other = replaced(&definition("30 1 * * * Europe/Berlin", true), &declared).unwrap();
        assert_eq!(other.ours, "30 1 * * * Europe/Berlin");
    }
}
