//! The objects of one kind as a watch delivers them, and whether it has listed them once.

use std::ops::Deref;

use kube::Resource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::cache::Guarded;

/// A [`Store`] that may be asked whether it is filled while others wait for it. The store's own `wait_until_ready` wakes
/// only who asked last: a probe would take the place of the leader that waits to begin.
pub struct Mirror<K: Resource<DynamicType = ()> + 'static> {
    store: Store<Guarded<K>>,
    listed: watch::Receiver<bool>,
}

/// Fills a [`Mirror`].
pub struct MirrorWriter<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<Guarded<K>>,
    listed: watch::Sender<bool>,
}

/// An empty mirror and what fills it.
pub fn mirror<K>() -> (Mirror<K>, MirrorWriter<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, writer) = reflector::store();
    let (sender, listed) = watch::channel(false);
    (Mirror { store, listed }, MirrorWriter { writer, listed: sender })
}

impl<K: Resource<DynamicType = ()> + 'static> Mirror<K> {
    pub fn is_listed(&self) -> bool {
        *self.listed.borrow()
    }

    /// Waits until it holds a first list; for ever where its watch has ended, which ends the process.
    pub async fn listed(&self) {
        if self.listed.clone().wait_for(|listed| *listed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> MirrorWriter<K> {
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
