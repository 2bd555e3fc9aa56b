//! How those who change jobs tell Redis of it, for those who listen. Nobody relies on a message.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, TenantId};

/// Most ids in one message.
const MOST: usize = 1_000;

/// Jobs of one tenant that have changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct News {
    pub tenant: TenantId,
    pub jobs: Vec<JobId>,
}

/// The channel of all news of jobs.
pub fn channel(prefix: &str) -> String {
    format!("{prefix}:job-changes")
}

/// What is published of these jobs.
pub fn encode(changed: &[(TenantId, JobId)]) -> Vec<Vec<u8>> {
    let mut changed = changed.to_vec();
    changed.sort_unstable();
    changed.dedup();
    let of_tenants = changed.chunk_by(|(one, _), (other, _)| one == other);
    let messages = of_tenants.flat_map(|of_tenant| of_tenant.chunks(MOST)).map(|some| {
        let news = News { tenant: some[0].0, jobs: some.iter().map(|(_, job)| *job).collect() };
        serde_json::to_vec(&news).expect("ids are plain data")
    });
    messages.collect()
}

pub(crate) fn decode(message: &[u8]) -> Result<News, serde_json::Error> {
    serde_json::from_slice(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_of_one_tenant_and_names_each_job_once() {
        let (one, other) = (TenantId::new(), TenantId::new());
        let jobs: Vec<JobId> = (0..=MOST).map(|_| JobId::new()).collect();
        let mut changed = vec![(other, jobs[0]), (one, jobs[1]), (other, jobs[0])];
        let decoded = |changed: &[_]| encode(changed).iter().map(|message| decode(message).unwrap()).collect::<Vec<_>>();
        let (first, second) = (News { tenant: one, jobs: vec![jobs[1]] }, News { tenant: other, jobs: vec![jobs[0]] });
        assert_eq!(decoded(&changed), [first, second]);
        changed = jobs.iter().map(|job| (one, *job)).collect();
        assert_eq!(decoded(&changed).iter().map(|news| news.jobs.len()).collect::<Vec<_>>(), [MOST, 1]);
        assert!(encode(&[]).is_empty());
    }
}
