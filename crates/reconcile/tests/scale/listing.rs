//! The shared listings: one decision for each of them covers all objects, so no pass has to decide.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::Arc;

use keyturn_reconcile::managed_secret::coverage;
use keyturn_reconcile::parameter_store::inventory::Inventory as Listing;
use keyturn_reconcile::ports::Regions;

use crate::cost::Tally;
use crate::world::{World, at_once, settings};

/// A listing of every region.
pub(crate) struct Round {
    pub tally: Tally,
    /// The objects that are queued, since the listing differs for them from the previous one. The first listing is
    /// taken before any pass.
    pub woken: Vec<String>,
}

impl World {
    pub(crate) fn list_every_region(&self) -> Round {
        let (now, regions) = {
            let mut state = self.lock();
            state.tally = Tally::default();
            let cluster = &state.cluster;
            let regions = coverage::coverage(cluster.secrets.values(), &cluster.grants, &settings());
            (state.now, regions)
        };
        let mut woken = BTreeSet::new();
        for (region, covered) in regions {
            let wanted = covered.wanted();
            let entries: Vec<String> = wanted.iter().cloned().collect();
            let listed = at_once(self.store(&region).list(&entries)).unwrap();
            let latest = Listing::new(now, wanted, listed);
            let mut state = self.lock();
            let known = state.region(&region);
            if let Some(older) = &known.listing {
                for path in latest.changes_since(older) {
                    woken.extend(covered.concerned(&path).map(|(_, name)| name));
                }
            }
            known.listing = Some(Arc::new(latest));
        }
        let tally = take(&mut self.lock().tally);
        Round { tally, woken: woken.into_iter().collect() }
    }
}
