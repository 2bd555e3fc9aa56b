//! This process's copy of the tokens. Pure: what is heard and read from Redis is handed in.
//!
//! A write of this process counts here at once, before Redis knows of it. Until Redis has told it back, the write stands
//! beside the token that Redis told last: that one may be of before the write, and must not bring old answers back.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::wire::{Change, Known, Token};
use super::{Entity, Part, Stamp, Touched};
use crate::ids::TenantId;

#[derive(Default)]
pub struct Local {
    tenants: HashMap<TenantId, Tenant>,
}

#[derive(Default)]
struct Tenant {
    entities: [Version; Entity::ALL.len()],
    /// A part that is not here was not changed by itself since everything was.
    parts: HashMap<Part, Version>,
    /// Whether the tokens of all entities are known.
    loaded: bool,
    /// Who told the tokens.
    server: String,
    /// Counts how often the tokens were forgotten: what was asked before is not to be believed after.
    epoch: u64,
    /// Counts whatever may have changed what is known.
    changes: u64,
}

#[derive(Default, Clone, Copy)]
struct Version {
    /// As Redis told it last.
    told: Option<Token>,
    /// A write of this process that Redis has not told back.
    own: Option<Own>,
}

#[derive(Clone, Copy)]
struct Own {
    token: Token,
    /// Whether Redis has it, so that whoever reads the tokens from now on reads this one or a later.
    landed: bool,
}

impl Version {
    fn wrote(&mut self, token: Token) {
        self.own = Some(Own { token, landed: false });
    }

    fn heard(&mut self, token: Token) {
        self.told = Some(token);
        self.own = self.own.filter(|own| own.token != token);
    }

    /// Whether that was the last own write.
    fn landed(&mut self, token: Token) -> bool {
        let own = self.own.as_mut().filter(|own| own.token == token);
        own.map(|own| own.landed = true).is_some()
    }

    fn forget(&mut self) {
        self.told = None;
        self.own = self.own.filter(|own| !own.landed);
    }
}

impl Tenant {
    fn version(&mut self, entity: Entity) -> &mut Version {
        &mut self.entities[entity as usize]
    }

    fn part(&mut self, part: Part) -> &mut Version {
        self.parts.entry(part).or_default()
    }

    fn forget(&mut self) {
        self.entities.iter_mut().for_each(Version::forget);
        self.parts.values_mut().for_each(Version::forget);
        self.parts.retain(|_, version| version.own.is_some());
        self.loaded = false;
        self.epoch += 1;
        self.changes += 1;
    }
}

impl Local {
    /// This process has written.
    pub fn wrote(&mut self, tenant: TenantId, change: &Change) {
        let tenant = self.tenants.entry(tenant).or_default();
        tenant.changes += 1;
        if change.is_everything() {
            // Whatever was told or written of a part is older.
            tenant.parts.clear();
        }
        change.entities.iter().for_each(|(entity, token)| tenant.version(*entity).wrote(*token));
        change.parts.iter().for_each(|(part, token)| tenant.part(*part).wrote(*token));
    }

    /// Redis has told of a write, perhaps of our own.
    pub fn heard(&mut self, tenant: TenantId, change: &Change) {
        // What is not known here is read from Redis when it is first asked for, with this change in it.
        let Some(tenant) = self.tenants.get_mut(&tenant) else { return };
        tenant.changes += 1;
        if change.is_everything() {
            // Redis does not tell parts apart any more.
            tenant.parts.retain(|_, version| {
                version.told = None;
                version.own.is_some()
            });
        }
        change.entities.iter().for_each(|(entity, token)| tenant.version(*entity).heard(*token));
        change.parts.iter().for_each(|(part, token)| tenant.part(*part).heard(*token));
    }

    /// Redis has taken a change that was sent in this epoch.
    pub fn landed(&mut self, tenant: TenantId, change: &Change, sent_in: u64) {
        let Some(tenant) = self.tenants.get_mut(&tenant) else { return };
        let mut waiting = false;
        for (entity, token) in &change.entities {
            waiting |= tenant.version(*entity).landed(*token);
        }
        for (part, token) in &change.parts {
            waiting |= tenant.parts.get_mut(part).is_some_and(|version| version.landed(*token));
        }
        // Told while nobody listened.
        if waiting && tenant.epoch != sent_in {
            tenant.forget();
        }
    }

    pub fn epoch(&self, tenant: TenantId) -> u64 {
        self.tenants.get(&tenant).map_or(0, |tenant| tenant.epoch)
    }

    /// The tokens of a tenant are about to be read from Redis. From here on, what is heard of it counts.
    pub fn begin_loading(&mut self, tenant: TenantId) -> u64 {
        self.tenants.entry(tenant).or_default().epoch
    }

    /// What Redis had. `false` when it was asked before the tokens were forgotten: then ask again.
    pub fn loaded(&mut self, tenant: TenantId, epoch: u64, known: Known) -> bool {
        let Some(tenant) = self.tenants.get_mut(&tenant).filter(|tenant| tenant.epoch == epoch) else { return false };
        tenant.server = known.server;
        // What was read may be of changes that were not heard of yet.
        tenant.changes += 1;
        // What was heard meanwhile may be newer.
        for (entity, token) in known.tokens.entities {
            tenant.version(entity).told.get_or_insert(token);
        }
        for (part, token) in known.tokens.parts {
            tenant.part(part).told.get_or_insert(token);
        }
        tenant.loaded = tenant.entities.iter().all(|version| version.told.is_some());
        tenant.loaded
    }

    /// The subscription broke, or begins: nothing that was known before can be believed.
    pub fn forget_all(&mut self) {
        self.tenants.values_mut().for_each(Tenant::forget);
    }

    /// How often something has happened to a tenant; `None` when nobody has asked yet, so that what is heard is not counted.
    pub fn changes(&self, tenant: TenantId) -> Option<u64> {
        self.tenants.get(&tenant).map(|tenant| tenant.changes)
    }

    /// From here on, what is heard of a tenant is counted.
    pub fn begin_counting(&mut self, tenant: TenantId) -> u64 {
        self.tenants.entry(tenant).or_default().changes
    }

    /// `None` while the tokens of the tenant are not known.
    pub fn stamp(&self, tenant: TenantId, made_of: &Touched) -> Option<Stamp> {
        let tenant = self.tenants.get(&tenant).filter(|tenant| tenant.loaded)?;
        let mut hash = Sha256::new_with_prefix(&tenant.server);
        let mut shared = true;
        let entities = made_of.entities.iter().map(|entity| tenant.entities[entity as usize]);
        let parts = made_of.parts.iter().map(|part| tenant.parts.get(part).copied().unwrap_or_default());
        for Version { told, own } in entities.chain(parts) {
            hash.update(told.unwrap_or_default());
            hash.update(own.map(|own| own.token).unwrap_or_default());
            shared &= own.is_none();
        }
        Some(Stamp { bytes: hash.finalize().into(), shared, at: tenant.changes })
    }

    /// The version of everything during one slice of time. Writes of this process change it at once.
    pub fn slice_stamp(&self, tenant: TenantId, slice: u128) -> Stamp {
        let changes = self.tenants.get(&tenant).map_or(0, |tenant| tenant.changes);
        let hash = Sha256::new_with_prefix(b"slice").chain_update(slice.to_be_bytes()).chain_update(changes.to_be_bytes());
        Stamp { bytes: hash.finalize().into(), shared: false, at: changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versions::{Entities, Thing};

    const DOCUMENT: Part = Part::Document([1; 32]);
    const METRICS: Entities = Entities::of(&[Entity::Metrics]);

    fn metric(key: &str) -> Change {
        Change::of(Touched { entities: METRICS, parts: vec![Part::Thing(Thing::metric(key))] })
    }

    struct Bench {
        local: Local,
        tenant: TenantId,
        /// What Redis has.
        redis: Known,
    }

    impl Bench {
        fn new() -> Self {
            let redis = Known { tokens: Change::of(Entities::ALL), server: "first".to_owned() };
            let mut bench = Self { local: Local::default(), tenant: TenantId::new(), redis };
            bench.load();
            bench
        }

        fn load(&mut self) {
            let epoch = self.local.begin_loading(self.tenant);
            assert!(self.local.loaded(self.tenant, epoch, self.redis.clone()));
        }

        fn stamp(&self) -> Stamp {
            self.of(METRICS, &[DOCUMENT]).unwrap()
        }

        /// Of an answer about one metric.
        fn stamp_of(&self, key: &str) -> Stamp {
            self.of(Entities::of(&[Entity::Things]), &[Part::Thing(Thing::metric(key)), DOCUMENT]).unwrap()
        }

        fn of(&self, entities: Entities, parts: &[Part]) -> Option<Stamp> {
            let stamp = self.local.stamp(self.tenant, &Touched { entities, parts: parts.to_vec() });
            // Whatever else is heard moves that.
            stamp.map(|stamp| Stamp { at: 0, ..stamp })
        }
    }

    #[test]
    fn a_write_counts_at_once_and_is_shared_when_it_was_told() {
        let mut bench = Bench::new();
        let before = bench.stamp();
        assert!(before.shared);
        let mine = Change::of(METRICS);
        bench.local.wrote(bench.tenant, &mine);
        let written = bench.stamp();
        assert!(written.bytes != before.bytes && !written.shared);
        // An older change of somebody else, told late, does not bring anything back.
        let theirs = Change::of(METRICS);
        bench.local.heard(bench.tenant, &theirs);
        let overtaken = bench.stamp();
        assert!(overtaken.bytes != before.bytes && overtaken.bytes != written.bytes && !overtaken.shared);
        bench.local.heard(bench.tenant, &mine);
        assert!(bench.stamp().shared);
    }

    #[test]
    fn other_entities_and_documents_are_not_touched() {
        let mut bench = Bench::new();
        let before = bench.stamp();
        bench.local.wrote(bench.tenant, &Change::of(Entities::of(&[Entity::People])));
        bench.local.wrote(bench.tenant, &Change::of(Touched::document([2; 32])));
        assert_eq!(bench.stamp(), before);
        bench.local.heard(bench.tenant, &Change::of(Touched::document([1; 32])));
        assert_ne!(bench.stamp(), before);
    }

    #[test]
    fn one_thing_changes_without_another() {
        let mut bench = Bench::new();
        let (list, one, other) = (bench.stamp(), bench.stamp_of("ONE"), bench.stamp_of("OTHER"));
        let mine = metric("ONE");
        bench.local.wrote(bench.tenant, &mine);
        let written = bench.stamp_of("ONE");
        assert!(written.bytes != one.bytes && !written.shared);
        assert!(bench.stamp_of("OTHER") == other && bench.stamp() != list);
        // An older change of somebody else, told late, does not bring anything back.
        bench.local.heard(bench.tenant, &metric("ONE"));
        let overtaken = bench.stamp_of("ONE");
        assert!(![one.bytes, written.bytes].contains(&overtaken.bytes) && !overtaken.shared);
        bench.local.heard(bench.tenant, &mine);
        assert!(bench.stamp_of("ONE").shared);
        bench.local.heard(bench.tenant, &Change::of(Entities::METRICS));
        assert_ne!(bench.stamp_of("OTHER"), other);
    }

    #[test]
    fn when_everything_changes_no_part_is_told_apart() {
        let mut bench = Bench::new();
        bench.local.heard(bench.tenant, &metric("TOLD"));
        let mine = metric("MINE");
        bench.local.wrote(bench.tenant, &mine);
        let before = [bench.stamp_of("TOLD"), bench.stamp_of("MINE")];
        bench.local.heard(bench.tenant, &Change::of(Entities::ALL));
        let after = [bench.stamp_of("TOLD"), bench.stamp_of("MINE")];
        assert!(before[0] != after[0] && before[1] != after[1] && !after[1].shared, "Redis may not have it");
        assert_eq!(bench.local.tenants[&bench.tenant].parts.len(), 1);
        bench.local.heard(bench.tenant, &mine);
        assert!(bench.stamp_of("MINE").shared);
    }

    #[test]
    fn writes_that_became_one_of_everything_wait_for_nothing_else() {
        let mut bench = Bench::new();
        bench.local.wrote(bench.tenant, &metric("MINE"));
        let everything = Change::of(Entities::ALL);
        bench.local.wrote(bench.tenant, &everything);
        assert!(!bench.stamp_of("MINE").shared);
        bench.local.heard(bench.tenant, &everything);
        assert!(bench.stamp_of("MINE").shared);
    }

    #[test]
    fn what_is_heard_while_loading_wins() {
        let mut bench = Bench { local: Local::default(), ..Bench::new() };
        let epoch = bench.local.begin_loading(bench.tenant);
        let newer = Change::of(METRICS);
        bench.local.heard(bench.tenant, &newer);
        assert!(bench.local.loaded(bench.tenant, epoch, bench.redis.clone()));
        let stamp = bench.stamp();
        bench.local.heard(bench.tenant, &newer);
        assert_eq!(bench.stamp(), stamp);
    }

    #[test]
    fn what_was_asked_before_a_break_does_not_count() {
        let mut bench = Bench::new();
        let epoch = bench.local.begin_loading(bench.tenant);
        bench.local.forget_all();
        assert!(bench.of(METRICS, &[DOCUMENT]).is_none());
        assert!(!bench.local.loaded(bench.tenant, epoch, bench.redis.clone()));
    }

    #[test]
    fn a_write_outlives_a_break_until_redis_has_it() {
        let mut bench = Bench::new();
        let mine = metric("MINE");
        bench.local.wrote(bench.tenant, &mine);
        let sent_in = bench.local.epoch(bench.tenant);
        bench.local.forget_all();
        bench.load();
        assert!(!bench.stamp().shared && !bench.stamp_of("MINE").shared, "Redis may not have it");
        bench.redis.tokens.merge(mine.clone());
        bench.local.landed(bench.tenant, &mine, sent_in);
        assert!(bench.of(METRICS, &[DOCUMENT]).is_none(), "it was told while nobody listened");
        bench.load();
        assert!(bench.stamp().shared && bench.stamp_of("MINE").shared);
    }

    #[test]
    fn another_server_brings_nothing_back() {
        let mut bench = Bench::new();
        let before = bench.stamp();
        bench.local.forget_all();
        bench.load();
        assert_eq!(bench.stamp(), before, "the connection broke, and nothing else");
        bench.redis.server = "second".to_owned();
        bench.local.forget_all();
        bench.load();
        assert_ne!(bench.stamp(), before);
    }

    #[test]
    fn whatever_makes_a_stamp_another_is_counted() {
        let mut bench = Bench::new();
        let (mut stamps, mut changes) = (Vec::new(), Vec::new());
        let mine = Change::of(METRICS);
        for step in 0..5 {
            match step {
                1 => bench.local.wrote(bench.tenant, &mine),
                2 => bench.local.heard(bench.tenant, &mine),
                3 => bench.local.heard(bench.tenant, &Change::of(METRICS)),
                4 => {
                    bench.local.forget_all();
                    bench.redis.tokens = Change::of(Entities::ALL);
                    bench.load();
                }
                _ => {}
            }
            stamps.push(bench.stamp().bytes);
            changes.push(bench.local.changes(bench.tenant).unwrap());
            assert_eq!(bench.local.stamp(bench.tenant, &METRICS.into()).unwrap().at, changes[step]);
        }
        assert!(stamps.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(changes.windows(2).all(|pair| pair[0] < pair[1]), "{changes:?}");
        assert_eq!(bench.local.changes(TenantId::new()), None);
    }

    #[test]
    fn in_a_slice_of_time_every_change_counts() {
        let mut bench = Bench::new();
        let slice = bench.local.slice_stamp(bench.tenant, 1);
        assert_eq!(slice, bench.local.slice_stamp(bench.tenant, 1));
        assert_ne!(slice, bench.local.slice_stamp(bench.tenant, 2));
        let mine = Change::of(METRICS);
        bench.local.wrote(bench.tenant, &mine);
        let written = bench.local.slice_stamp(bench.tenant, 1);
        assert_ne!(slice, written);
        bench.local.heard(bench.tenant, &mine);
        assert!(![slice, written].contains(&bench.local.slice_stamp(bench.tenant, 1)));
    }
}
