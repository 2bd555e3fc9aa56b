//! What is asked often: counted in memory, told to Redis every few seconds. `mdl::warming` says what for.
//!
//! Counting must not slow down what it counts. A few requests of each interval are all counted; of more, each sixteenth, for
//! sixteen. What was told stays here as well, the most used of it, so that a Redis that forgot everything learns it again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use mdl::error::causes;
use mdl::ids::TenantId;
use mdl::warming::used::{self, Use, UseId};
use mdl::warming::{self, Asked, Score};
use mdl::{Actor, App};
use tracing::{debug, warn};

use super::question::{Question, use_id};
use crate::graphql::executor::Wanted;

/// Between two times that Redis is told.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Requests of such an interval that are all counted.
const ALL_OF: u64 = 500;
/// Of those after them, one in so many is, for all of these.
const SAMPLE: u32 = 16;
/// Operations counted at once, and bytes of them. Half of each stays when Redis has been told; what comes when it is full
/// is not counted until then.
const MAX_COUNTED: usize = 4_000;
const MAX_BYTES: usize = 8 << 20;

/// Counts uses of operations whose answers are kept.
pub struct Used {
    seen: AtomicU64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    uses: HashMap<(TenantId, UseId), Counted>,
    /// Of their JSON.
    bytes: usize,
}

struct Counted {
    /// JSON of an [`Asked`].
    asked: Arc<str>,
    /// Whether Redis has it.
    told: bool,
    /// All uses seen here.
    total: Score,
    /// Those that Redis has not been told of.
    untold: Option<Score>,
}

impl Used {
    /// Counts nothing yet, and nothing at all where nobody warms. Also asks for a warming, as soon as kept answers are shared.
    pub fn start(app: &App) -> Option<Arc<Self>> {
        app.config.warming.secret.as_ref()?;
        let used = Arc::new(Self { seen: AtomicU64::new(0), counts: Mutex::default() });
        tokio::spawn(tell_for_ever(Arc::downgrade(&used), app.clone()));
        tokio::spawn(ask_for_warming(Arc::downgrade(&used), app.clone()));
        Some(used)
    }

    /// Counts a use, or does not: see above. Answers that are for one person are made when that person asks.
    pub fn count(&self, actor: &Actor, wanted: Wanted<'_>, question: &Question) {
        let weight = match self.seen.fetch_add(1, Ordering::Relaxed) {
            seen if seen < ALL_OF => 1,
            seen if seen % u64::from(SAMPLE) == 0 => SAMPLE,
            _ => return,
        };
        if question.policy.personal {
            return;
        }
        let id = use_id(actor, question, wanted.operation().name.as_deref(), wanted.variables);
        let score = Score::of(weight, SystemTime::now());
        let mut counts = self.lock();
        if let Some(counted) = counts.uses.get_mut(&(actor.tenant, id)) {
            counted.total = counted.total.and(score);
            counted.untold = Some(counted.untold.map_or(score, |untold| untold.and(score)));
        } else if counts.uses.len() < MAX_COUNTED
            && counts.bytes < MAX_BYTES
            && let Some(asked) = describe(actor, wanted)
        {
            counts.bytes += asked.len();
            counts.uses.insert((actor.tenant, id), Counted { asked, told: false, total: score, untold: Some(score) });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells Redis what was counted since the last time. What it could not be told, it is told later.
    async fn tell(&self, app: &App) -> mdl::Result<()> {
        self.seen.store(0, Ordering::Relaxed);
        let mut tenants = self.lock().take_untold();
        while let Some((tenant, told)) = tenants.pop() {
            let uses: Vec<_> = told.iter().map(Told::as_use).collect();
            match used::add(app, tenant, &uses).await {
                Ok(lacking) if lacking.everything => {
                    // Only now it knows the tenant, and of that no more than the last seconds.
                    let rest = self.lock().take_all_but(tenant, &told, &lacking.ids);
                    let uses: Vec<_> = rest.iter().map(Told::as_use).collect();
                    if !uses.is_empty() {
                        used::add(app, tenant, &uses).await?;
                    }
                }
                Ok(lacking) => self.lock().take_back(tenant, &lacking.ids),
                Err(error) => {
                    let mut counts = self.lock();
                    for (tenant, told) in tenants.into_iter().chain([(tenant, told)]) {
                        counts.restore(tenant, told);
                    }
                    return Err(error);
                }
            }
        }
        self.lock().shrink();
        Ok(())
    }
}

/// A use on its way to Redis.
struct Told {
    id: UseId,
    score: Score,
    /// `None` when Redis has it.
    asked: Option<Arc<str>>,
}

impl Told {
    fn as_use(&self) -> Use<'_> {
        Use { id: self.id, score: self.score, asked: self.asked.as_deref() }
    }
}

impl Counts {
    fn take_untold(&mut self) -> Vec<(TenantId, Vec<Told>)> {
        let mut tenants: HashMap<TenantId, Vec<Told>> = HashMap::new();
        for ((tenant, id), counted) in &mut self.uses {
            if let Some(score) = counted.untold.take() {
                let asked = (!counted.told).then(|| counted.asked.clone());
                counted.told = true;
                tenants.entry(*tenant).or_default().push(Told { id: *id, score, asked });
            }
        }
        tenants.into_iter().collect()
    }

    /// All of a tenant, with all their uses, except for those that Redis has just been told of and does not lack.
    fn take_all_but(&mut self, tenant: TenantId, told: &[Told], lacking: &[UseId]) -> Vec<Told> {
        let has = |id: &UseId| told.iter().any(|told| told.id == *id) && !lacking.contains(id);
        let of_tenant = self.uses.iter_mut().filter(|((of, id), _)| *of == tenant && !has(id));
        of_tenant
            .map(|((_, id), counted)| {
                (counted.told, counted.untold) = (true, None);
                Told { id: *id, score: counted.total, asked: Some(counted.asked.clone()) }
            })
            .collect()
    }

    /// Redis has dropped these: it is to be told of them from the beginning.
    fn take_back(&mut self, tenant: TenantId, ids: &[UseId]) {
        for id in ids {
            if let Some(counted) = self.uses.get_mut(&(tenant, *id)) {
                (counted.told, counted.untold) = (false, Some(counted.total));
            }
        }
    }

    /// Redis could not be told of these.
    fn restore(&mut self, tenant: TenantId, uses: Vec<Told>) {
        for used in uses {
            if let Some(counted) = self.uses.get_mut(&(tenant, used.id)) {
                counted.told &= used.asked.is_none();
                counted.untold = Some(counted.untold.map_or(used.score, |untold| untold.and(used.score)));
            }
        }
    }

    /// Makes room for others: the most used stay.
    fn shrink(&mut self) {
        if self.uses.len() <= MAX_COUNTED / 2 && self.bytes <= MAX_BYTES / 2 {
            return;
        }
        let mut by_score: Vec<_> = self.uses.drain().collect();
        by_score.sort_by(|(_, one), (_, other)| other.total.value().total_cmp(&one.total.value()));
        self.bytes = 0;
        for (key, counted) in by_score.into_iter().take(MAX_COUNTED / 2) {
            self.bytes += counted.asked.len();
            if self.bytes > MAX_BYTES / 2 {
                self.bytes -= counted.asked.len();
                break;
            }
            self.uses.insert(key, counted);
        }
    }
}

/// The JSON of what is asked; `None` when it is too long to be remembered.
fn describe(actor: &Actor, wanted: Wanted<'_>) -> Option<Arc<str>> {
    let query = &wanted.document.text;
    if query.len() > used::MAX_BYTES {
        return None;
    }
    let asked = Asked {
        permissions: actor.permissions,
        query: query.to_string(),
        operation_name: wanted.operation().name.clone(),
        variables: serde_json::to_value(wanted.variables).ok()?,
    };
    let json = serde_json::to_string(&asked).ok()?;
    (json.len() <= used::MAX_BYTES).then(|| json.into())
}

async fn tell_for_ever(used: Weak<Used>, app: App) {
    let mut failing = false;
    loop {
        tokio::time::sleep(TELL_EVERY).await;
        let Some(used) = used.upgrade() else { return };
        let told = used.tell(&app).await;
        if let Err(error) = &told
            && !failing
        {
            warn!(error = causes(error), "Could not tell Redis what is asked often; trying again every few seconds");
        }
        failing = told.is_err();
    }
}

/// Waits until other processes' changes are heard of (before, answers are kept for a second at most), and says that this
/// process has nothing in its memory yet.
async fn ask_for_warming(used: Weak<Used>, app: App) {
    while !app.versions.is_live() {
        if used.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    if let Err(error) = warming::enqueue_all(&app).await {
        debug!(%error, "Could not enqueue a warming; it comes by the clock");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Score {
        Score::of(1, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn counts(uses: impl IntoIterator<Item = (TenantId, u8, Score)>) -> Counts {
        let mut counts = Counts::default();
        for (tenant, id, score) in uses {
            let counted = Counted { asked: "{}".into(), told: false, total: score, untold: Some(score) };
            counts.uses.insert((tenant, [id; 16]), counted);
            counts.bytes += 2;
        }
        counts
    }

    #[test]
    fn redis_is_told_of_each_use_once_and_of_each_text_once() {
        let tenant = TenantId::new();
        let mut counts = counts([(tenant, 1, at(1))]);
        let told = counts.take_untold();
        assert!(told[0].1[0].asked.is_some());
        assert!(counts.take_untold().is_empty());
        // It could not be told: once more, with the text.
        counts.restore(tenant, told.into_iter().next().unwrap().1);
        assert!(counts.take_untold()[0].1[0].asked.is_some());
        // It has dropped it: all uses, and the text.
        counts.take_back(tenant, &[[1; 16], [9; 16]]);
        let told = counts.take_untold();
        assert!(told[0].1[0].asked.is_some() && told[0].1[0].score == at(1));
    }

    #[test]
    fn a_redis_that_knows_nothing_is_told_the_rest() {
        let (tenant, other) = (TenantId::new(), TenantId::new());
        let mut counts = counts([(tenant, 1, at(1)), (tenant, 2, at(2)), (tenant, 3, at(3)), (other, 4, at(4))]);
        let told =
            vec![Told { id: [1; 16], score: at(1), asked: Some("{}".into()) }, Told { id: [2; 16], score: at(2), asked: None }];
        let mut rest: Vec<_> = counts.take_all_but(tenant, &told, &[[2; 16]]).iter().map(|told| told.id[0]).collect();
        rest.sort_unstable();
        assert_eq!(rest, [2, 3]);
    }

    #[test]
    fn the_most_used_stay() {
        let tenant = TenantId::new();
        let mut counts = Counts::default();
        for number in 0..MAX_COUNTED as u64 {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_be_bytes());
            let counted = Counted { asked: "{}".into(), told: true, total: at(number), untold: None };
            counts.uses.insert((tenant, id), counted);
            counts.bytes += 2;
        }
        counts.shrink();
        assert_eq!((counts.uses.len(), counts.bytes), (MAX_COUNTED / 2, MAX_COUNTED));
        assert!(counts.uses.values().all(|counted| counted.total >= at(MAX_COUNTED as u64 / 2)));
    }
}
