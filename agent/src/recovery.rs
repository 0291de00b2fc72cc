//! The end of an outage: the API server is asked whether it answers again, and then the checks that wait out their grown
//! pauses are looked at, one after the other, so that it is no storm.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::context::Context;
use crate::controller::Guarded;

/// While the API server does not answer it is asked after each such time, and waited for as long.
const PROBE: Duration = Duration::from_secs(2);
/// An outage that is shorter lets no pause grow above this time.
const BRIEF: Duration = Duration::from_secs(5);
/// Time from one check that is woken to the next: twenty in a second.
const SPACING: Duration = Duration::from_millis(50);

/// Each time that the API server answers again, wakes the checks that wait to be tried again.
pub(crate) async fn run(context: Arc<Context>, store: Store<Guarded>, wake: mpsc::Sender<ObjectRef<Guarded>>) {
    let (client, answers) = (context.client.clone(), context.answers.clone());
    follow(client, answers, || backing_off(&context, &store), wake).await;
}

async fn follow(
    client: Client,
    mut answers: watch::Receiver<bool>,
    waiting: impl Fn() -> Vec<ObjectRef<Guarded>>,
    wake: mpsc::Sender<ObjectRef<Guarded>>,
) {
    let mut is_owed = false;
    while answers.wait_for(|answers| !answers).await.is_ok() {
        let began = Instant::now();
        until_it_answers(&client, &answers).await;
        is_owed |= began.elapsed() >= BRIEF;
        is_owed = is_owed && !wake_all(waiting(), &answers, &wake).await;
    }
}

/// False where the API server went away again in between.
async fn wake_all(
    checks: Vec<ObjectRef<Guarded>>,
    answers: &watch::Receiver<bool>,
    wake: &mpsc::Sender<ObjectRef<Guarded>>,
) -> bool {
    for check in checks {
        if !*answers.borrow() {
            return false;
        }
        // Nobody listens any more where the agent is about to end.
        wake.send(check).await.ok();
        sleep(SPACING).await;
    }
    true
}

async fn until_it_answers(client: &Client, answers: &watch::Receiver<bool>) {
    loop {
        sleep(PROBE).await;
        if *answers.borrow() {
            return;
        }
        // The gate hears how it is answered.
        if let Ok(request) = Request::get("/readyz").body(Vec::new()) {
            timeout(PROBE, client.request_text(request)).await.ok();
        }
        if *answers.borrow() {
            return;
        }
    }
}

/// The checks that wait to be tried again. What made their pauses long is over: the next ones are short.
pub(crate) fn backing_off(context: &Context, store: &Store<Guarded>) -> Vec<ObjectRef<Guarded>> {
    let checks = store.state();
    let mut memory = context.memory.lock();
    let waiting = checks.iter().filter(|check| {
        let known = check.meta().uid.as_ref().and_then(|uid| memory.get_mut(uid));
        known.is_some_and(|known| {
            known.failures = known.failures.min(1);
            known.failures == 1
        })
    });
    waiting.map(|check| ObjectRef::from_obj(&**check)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use http::Response;
    use kube::client::{Body, ClientBuilder};
    use prometheus::Registry;
    use tower::BoxError;

    use super::*;
    use crate::clock::Clock;
    use crate::gate::{Fence, Gate};

    const CHECKS: usize = 100;

    /// An API server that answers or does not, behind a gate, with [`CHECKS`] that wait; and what becomes of it.
    struct World {
        is_up: Arc<AtomicBool>,
        asked: Arc<AtomicUsize>,
        client: Client,
        woken: mpsc::Receiver<ObjectRef<Guarded>>,
    }

    impl World {
        fn new() -> World {
            let (is_up, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
            let (up, counter) = (is_up.clone(), asked.clone());
            let service = tower::service_fn(move |_: Request<Body>| {
                counter.fetch_add(1, Ordering::Relaxed);
                let up = up.load(Ordering::Relaxed);
                async move {
                    if !up {
                        return std::future::pending().await;
                    }
                    Ok::<_, BoxError>(Response::new(Body::from(b"ok".to_vec())))
                }
            });
            let registry = Registry::new();
            let gate = Gate::new(Fence::open(), Clock::new(&registry).unwrap(), &registry).unwrap();
            let client = ClientBuilder::new(service, "health").with_layer(&gate).build();
            let (wake, woken) = mpsc::channel(1);
            let waiting = || (0..CHECKS).map(|i| ObjectRef::new(&format!("check-{i}")).within("health")).collect();
            tokio::spawn(follow(client.clone(), gate.answers(), waiting, wake));
            World { is_up, asked, client, woken }
        }

        /// A request of a check's, which is what an outage is noticed by.
        async fn ask(&self) -> bool {
            self.client.request_text(Request::get("/version").body(Vec::new()).unwrap()).await.is_ok()
        }

        async fn goes(&self) {
            self.is_up.store(false, Ordering::Relaxed);
            assert!(!self.ask().await);
        }

        fn returns(&self) {
            self.is_up.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_checks_are_looked_at_within_ten_seconds_of_an_outage_s_end_and_not_at_once() {
        let mut world = World::new();
        world.goes().await;
        let before = world.asked.load(Ordering::Relaxed);
        assert!(timeout(Duration::from_secs(600), world.woken.recv()).await.is_err(), "nothing, as long as it is away");
        let probes = world.asked.load(Ordering::Relaxed) - before;
        assert!((140..=160).contains(&probes), "{probes} probes in ten minutes");
        world.returns();
        let back = Instant::now();
        let mut woken = Vec::new();
        while woken.len() < CHECKS {
            woken.push(world.woken.recv().await.unwrap().name);
            let (passed, most) = (back.elapsed(), woken.len() as u32 * SPACING);
            assert!(passed <= Duration::from_secs(10) && passed + SPACING >= most, "{} after {passed:?}", woken.len());
        }
        woken.sort();
        woken.dedup();
        assert_eq!(woken.len(), CHECKS, "each once");
        assert!(timeout(Duration::from_secs(60), world.woken.recv()).await.is_err(), "and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_fails_now_and_then_wakes_nobody() {
        let mut world = World::new();
        for _ in 0..20 {
            world.goes().await;
            world.returns();
            assert!(world.ask().await);
            sleep(Duration::from_secs(1)).await;
        }
        assert!(timeout(Duration::from_secs(60), world.woken.recv()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_that_comes_back_is_waited_for_and_all_are_woken_then() {
        let mut world = World::new();
        world.goes().await;
        sleep(Duration::from_secs(60)).await;
        world.returns();
        for _ in 0..3 {
            world.woken.recv().await.unwrap();
        }
        world.goes().await;
        // One may be on its way.
        world.woken.try_recv().ok();
        world.returns();
        for _ in 0..CHECKS {
            world.woken.recv().await.unwrap();
        }
    }
}
