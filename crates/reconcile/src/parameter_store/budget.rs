//! Request budget (rate limit) per AWS account and region, shared by all workers. With it keyturn stays below quotas
//! that it shares with everybody else in the account: PutParameter 3/s, value reads 40/s, DescribeParameters
//! unpublished and low. Every request that is sent, retries included, takes one token. The most urgent request goes
//! first; among equally urgent requests, the one that came first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

/// The quota that a request counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quota {
    /// PutParameter.
    Put,
    /// DeleteParameter.
    Delete,
    /// GetParameter, GetParametersByPath and GetParameterHistory.
    Read,
    /// DescribeParameters.
    Describe,
}

/// Number of requests per second, and number of requests at once after a pause (burst).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests per second in the long run.
    pub per_second: f64,
    /// Requests at once after a pause; 0 counts as 1.
    pub burst: u32,
}

/// Rates of a budget; the defaults are well below AWS's default quotas.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Rate of [`Quota::Put`].
    pub put: Rate,
    /// Rate of [`Quota::Delete`].
    pub delete: Rate,
    /// Rate of [`Quota::Read`].
    pub read: Rate,
    /// Rate of [`Quota::Describe`].
    pub describe: Rate,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            put: Rate { per_second: 1.0, burst: 1 },
            delete: Rate { per_second: 1.0, burst: 1 },
            read: Rate { per_second: 10.0, burst: 10 },
            describe: Rate { per_second: 2.0, burst: 2 },
        }
    }
}

impl Rates {
    /// Returns the rates for an account that allows this many Puts per second. Above the default rate for Puts, the
    /// other rates are raised by the same factor.
    pub fn for_puts(per_second: f64) -> Self {
        let base = Self::default();
        let factor = (per_second / base.put.per_second).max(1.0);
        let raised = |rate: Rate| Rate { per_second: rate.per_second * factor, ..rate };
        Self {
            put: Rate { per_second, ..base.put },
            delete: raised(base.delete),
            read: raised(base.read),
            describe: raised(base.describe),
        }
    }
}

/// Urgency of a request: the request with the highest number goes first. Routine work has 0. A suitable number for
/// other work is the seconds by which it is overdue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Urgency(pub i64);

tokio::task_local! {
    static URGENCY: Urgency;
}

/// Runs `work` so that all its requests to SSM wait in the queue with this urgency. Work outside such a scope is
/// routine.
pub async fn with_urgency<F: Future>(urgency: Urgency, work: F) -> F::Output {
    URGENCY.scope(urgency, work).await
}

/// The request budget of one account and region.
pub struct Budget {
    put: Bucket,
    delete: Bucket,
    read: Bucket,
    describe: Bucket,
}

impl Budget {
    /// Makes a budget in which each quota has its whole burst available.
    pub fn new(rates: Rates) -> Self {
        let bucket = |rate| Bucket { queue: Mutex::new(Queue::new(rate, Instant::now())) };
        Self {
            put: bucket(rates.put),
            delete: bucket(rates.delete),
            read: bucket(rates.read),
            describe: bucket(rates.describe),
        }
    }

    /// Waits until this request may be sent, and takes a token for it. If the future is dropped before, the request
    /// leaves the queue and takes no token.
    pub async fn turn(&self, quota: Quota) {
        let bucket = match quota {
            Quota::Put => &self.put,
            Quota::Delete => &self.delete,
            Quota::Read => &self.read,
            Quota::Describe => &self.describe,
        };
        let mut ticket = Ticket::enter(bucket, URGENCY.try_get().unwrap_or_default());
        loop {
            match ticket.try_take(Instant::now()) {
                Turn::Now => return,
                Turn::In(wait) => tokio::time::sleep(wait).await,
                Turn::AfterOthers => ticket.moved_up.notified().await,
            }
        }
    }
}

struct Bucket {
    queue: Mutex<Queue>,
}

impl Bucket {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds the lock, and the queue is consistent after every statement.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sort key: most urgent first, then first come, first served.
type Place = (Reverse<Urgency>, u64);

struct Queue {
    tokens: Tokens,
    waiting: BTreeMap<Place, Arc<Notify>>,
    entered: u64,
}

#[derive(Debug, PartialEq)]
enum Turn {
    Now,
    /// The request is the first in the queue; the next token is available after this time.
    In(Duration),
    AfterOthers,
}

impl Queue {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { tokens: Tokens::full(rate, now), waiting: BTreeMap::new(), entered: 0 }
    }

    fn enter(&mut self, urgency: Urgency) -> (Place, Arc<Notify>) {
        let place = (Reverse(urgency), self.entered);
        self.entered += 1;
        let moved_up = Arc::new(Notify::new());
        self.waiting.insert(place, moved_up.clone());
        (place, moved_up)
    }

    /// Takes a token if `place` is the first. The place is kept until [`Queue::leave`].
    fn try_take(&mut self, place: Place, now: Instant) -> Turn {
        if self.waiting.first_key_value().is_some_and(|(first, _)| *first != place) {
            return Turn::AfterOthers;
        }
        match self.tokens.take(now) {
            Ok(()) => Turn::Now,
            Err(wait) => Turn::In(wait),
        }
    }

    fn leave(&mut self, place: Place) {
        self.waiting.remove(&place);
        if let Some((_, moved_up)) = self.waiting.first_key_value() {
            moved_up.notify_one();
        }
    }
}

/// A place in a queue. Dropping the ticket gives up the place.
struct Ticket<'a> {
    bucket: &'a Bucket,
    place: Place,
    moved_up: Arc<Notify>,
}

impl<'a> Ticket<'a> {
    fn enter(bucket: &'a Bucket, urgency: Urgency) -> Self {
        let (place, moved_up) = bucket.lock().enter(urgency);
        Self { bucket, place, moved_up }
    }

    fn try_take(&mut self, now: Instant) -> Turn {
        self.bucket.lock().try_take(self.place, now)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.bucket.lock().leave(self.place);
    }
}

/// A token bucket; the caller passes in the time.
struct Tokens {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Tokens {
    fn full(rate: Rate, now: Instant) -> Self {
        Self { rate, level: f64::from(rate.burst.max(1)), at: now }
    }

    /// Takes one token, or returns the time until there is one.
    fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at);
        let capacity = f64::from(self.rate.burst.max(1));
        self.level = (self.level + passed.as_secs_f64() * self.rate.per_second).min(capacity);
        self.at = self.at.max(now);
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        // One millisecond more, so that rounding never wakes the waiter just too early.
        let wait = Duration::try_from_secs_f64((1.0 - self.level) / self.rate.per_second);
        Err(wait.unwrap_or(Duration::from_secs(3600)) + Duration::from_millis(1))
    }
}

/// Counter of the requests to SSM that were sent, by operation and result. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct SsmCalls(Family<CallLabels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    operation: &'static str,
    result: &'static str,
}

impl SsmCalls {
    /// Registers the numbers as the metric `ssm_calls_total`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("ssm_calls", "Requests sent to SSM, retries included", self.0.clone());
    }

    /// Counts one request that was sent.
    pub fn count(&self, operation: &'static str, result: &'static str) {
        self.0.get_or_create(&CallLabels { operation, result }).inc();
    }

    /// Returns the number of requests of this operation that ended in this result.
    pub fn get(&self, operation: &'static str, result: &'static str) -> u64 {
        self.0.get_or_create(&CallLabels { operation, result }).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_listings_are_raised_with_the_puts_and_never_lowered() {
        assert_eq!(Rates::for_puts(1.0), Rates::default());
        let slow = Rates::for_puts(0.5);
        assert_eq!((slow.put.per_second, slow.describe), (0.5, Rates::default().describe));
        assert_eq!(Rates::for_puts(10.0).describe.per_second, 10.0 * Rates::default().describe.per_second);
    }

    const RATE: Rate = Rate { per_second: 2.0, burst: 3 };

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let start = Instant::now();
        let mut tokens = Tokens::full(RATE, start);
        for _ in 0..3 {
            assert_eq!(tokens.take(start), Ok(()));
        }
        assert_eq!(tokens.take(start), Err(Duration::from_millis(501)));
        assert_eq!(tokens.take(start + Duration::from_millis(400)), Err(Duration::from_millis(101)));
        assert_eq!(tokens.take(start + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn a_long_pause_earns_no_more_than_the_burst() {
        let start = Instant::now();
        let mut tokens = Tokens::full(RATE, start);
        let later = start + Duration::from_secs(3600);
        let passed = (0..10).filter(|_| tokens.take(later).is_ok()).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn a_clock_that_steps_back_earns_nothing_twice() {
        let start = Instant::now();
        let mut tokens = Tokens::full(Rate { per_second: 1.0, burst: 1 }, start);
        let later = start + Duration::from_secs(1);
        assert!(tokens.take(start).is_ok());
        assert!(tokens.take(later).is_ok());
        assert!(tokens.take(start).is_err());
        assert!(tokens.take(later).is_err());
    }

    #[test]
    fn a_rate_of_zero_waits_and_does_not_panic() {
        let start = Instant::now();
        let mut tokens = Tokens::full(Rate { per_second: 0.0, burst: 0 }, start);
        assert!(tokens.take(start).is_ok());
        assert!(tokens.take(start).is_err());
    }

    #[test]
    fn the_most_urgent_goes_first_then_the_one_that_came_first() {
        let now = Instant::now();
        let mut queue = Queue::new(Rate { per_second: 1.0, burst: 10 }, now);
        let places: Vec<Place> = [0, 5, 0, 9, 5].map(|urgency| queue.enter(Urgency(urgency)).0).into();
        let mut order = Vec::new();
        while order.len() < places.len() {
            let waiting: Vec<usize> = (0..places.len()).filter(|i| !order.contains(i)).collect();
            let served: Vec<usize> =
                waiting.into_iter().filter(|&i| queue.try_take(places[i], now) == Turn::Now).collect();
            assert_eq!(served.len(), 1, "one is first");
            queue.leave(places[served[0]]);
            order.push(served[0]);
        }
        assert_eq!(order, [3, 1, 4, 0, 2]);
    }

    #[tokio::test]
    async fn one_that_gives_up_lets_the_next_pass_and_spends_nothing() {
        let slow = Rate { per_second: 0.001, burst: 2 };
        let budget = Arc::new(Budget::new(Rates { put: slow, ..Rates::default() }));
        budget.turn(Quota::Put).await;
        // Cancelled while it is the first in the queue, before it has taken a token.
        let first = Ticket::enter(&budget.put, Urgency(9));
        let second = tokio::spawn({
            let budget = budget.clone();
            async move { budget.turn(Quota::Put).await }
        });
        while budget.put.lock().waiting.len() < 2 {
            tokio::task::yield_now().await;
        }
        drop(first);
        tokio::time::timeout(Duration::from_secs(60), second)
            .await
            .expect("the second has its turn")
            .unwrap();
    }

    #[tokio::test]
    async fn quotas_do_not_take_from_each_other() {
        let slow = Rate { per_second: 0.0001, burst: 1 };
        let budget = Budget::new(Rates { put: slow, delete: slow, read: slow, describe: slow });
        let all = async {
            for quota in [Quota::Put, Quota::Delete, Quota::Read, Quota::Describe] {
                budget.turn(quota).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all).await.expect("each has a token of its own");
    }
}
