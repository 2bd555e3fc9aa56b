//! When answers must stay kept: while an API hears of all changes at once, and of none. On a machine that stands still for a
//! moment it hears of nothing, and keeps answers for a second at most. So these tests look whether it heard.

use std::time::Duration;

use mdl::App;
use mdl::ids::TenantId;
use mdl::versions::{Entities, Stamp};
use mdl_tests::eventually;
use tokio_util::task::AbortOnDropHandle;

/// Between two looks. An API that has lost touch is not live again for much longer ([`GRACE`](mdl::versions::GRACE)), so that no
/// loss is missed.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until an API hears of changes: before, it keeps answers for a second at most and shares none.
pub async fn live(app: &App) {
    eventually("changes are heard of", async || app.versions.is_live().then_some(())).await;
}

/// Remembers whether some APIs have heard of changes all the time.
pub struct Hearing {
    apps: Vec<App>,
    watching: AbortOnDropHandle<()>,
}

impl Hearing {
    /// Waits until these do, and watches from then on.
    pub async fn of(apps: &[&App]) -> Self {
        for app in apps {
            live(app).await;
        }
        let apps: Vec<_> = apps.iter().copied().cloned().collect();
        let watched = apps.clone();
        let watching = tokio::spawn(async move {
            while all_live(&watched) {
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { apps, watching: AbortOnDropHandle::new(watching) }
    }

    /// Whether nothing was lost so far. If it was, nothing need have stayed kept.
    pub fn held(&self) -> bool {
        all_live(&self.apps) && !self.watching.is_finished()
    }
}

fn all_live(apps: &[App]) -> bool {
    apps.iter().all(|app| app.versions.is_live())
}

/// Waits until Redis has told all writes of before back.
pub async fn settled(app: &App, tenant: TenantId) {
    undisturbed(app, tenant, async || ()).await;
}

/// What some requests gave while an API heard of all changes of a tenant, and of none: then the versions of everything stayed
/// the same, and what was kept is found. Sends them anew when a change was told meanwhile, such as a write of just before.
pub async fn undisturbed<T>(app: &App, tenant: TenantId, requests: impl AsyncFn() -> T) -> T {
    undisturbed_after(app, &[tenant], async |_| (), async |_| requests().await).await
}

/// The same of several tenants, and with something that is to be done before. Both are told how often they were done already.
pub async fn undisturbed_after<T>(
    app: &App,
    tenants: &[TenantId],
    prepare: impl AsyncFn(usize),
    requests: impl AsyncFn(usize) -> T,
) -> T {
    for round in 0..100 {
        prepare(round).await;
        let hearing = Hearing::of(&[app]).await;
        let before = eventually("its own writes are told back", async || versions(app, tenants).await).await;
        let answers = requests(round).await;
        if hearing.held() && versions(app, tenants).await == Some(before) {
            return answers;
        }
    }
    panic!("something changes all the time");
}

/// The versions of everything; `None` while one of them is of a slice of time, or of a write that Redis has not told back.
async fn versions(app: &App, tenants: &[TenantId]) -> Option<Vec<Stamp>> {
    let mut stamps = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        stamps.push(app.versions.stamp(*tenant, &Entities::ALL.into()).await);
    }
    stamps.iter().all(|stamp| stamp.shared).then_some(stamps)
}
