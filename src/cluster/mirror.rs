//! A cache of one kind of objects, filled by a watch, that knows when its first list is complete.

use std::ops::Deref;

use kube::Resource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::guarded::Guarded;

/// A [`Store`] with a readiness check that any number of tasks can use. The store's own `wait_until_ready` wakes only
/// the last task that called it, so a probe would take the place of the leader that waits to start.
pub struct Mirror<K: Resource<DynamicType = ()> + 'static> {
    store: Store<Guarded<K>>,
    listed: watch::Receiver<bool>,
}

/// The writing side of a [`Mirror`].
pub struct MirrorWriter<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<Guarded<K>>,
    listed: watch::Sender<bool>,
}

/// Creates an empty mirror and its writer.
pub fn mirror<K>() -> (Mirror<K>, MirrorWriter<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, writer) = reflector::store();
    let (sender, listed) = watch::channel(false);
    (Mirror { store, listed }, MirrorWriter { writer, listed: sender })
}

impl<K: Resource<DynamicType = ()> + 'static> Mirror<K> {
    /// True once the mirror holds a complete first list; it stays true while the list is repeated.
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Waits until the mirror holds a first list. If its watch has ended, it never returns; the end of a watch ends the
    /// process.
    pub async fn listed(&self) {
        if self.listed.clone().wait_for(|listed| *listed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> MirrorWriter<K> {
    /// Applies an event of the watch. The first `InitDone` marks the mirror as listed.
    pub fn apply(&mut self, event: &Event<Guarded<K>>) {
        self.writer.apply_watcher_event(event);
        if matches!(event, Event::InitDone) {
            self.listed.send_replace(true);
        }
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Deref for Mirror<K> {
    type Target = Store<Guarded<K>>;

    fn deref(&self) -> &Self::Target {
        &self.store
    }
}

impl<K: Resource<DynamicType = ()> + 'static> Clone for Mirror<K> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), listed: self.listed.clone() }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::api::RotationGrant;

    #[tokio::test]
    async fn whoever_asks_whether_it_is_listed_keeps_nobody_waiting() {
        let (grants, mut writer) = mirror::<RotationGrant>();
        let waiting = {
            let grants = grants.clone();
            tokio::spawn(async move { grants.listed().await })
        };
        tokio::task::yield_now().await;
        assert!(!grants.is_listed());
        assert!(grants.listed().now_or_never().is_none());
        writer.apply(&Event::Init);
        writer.apply(&Event::InitDone);
        waiting.await.unwrap();
        assert!(grants.is_listed());
    }
}
