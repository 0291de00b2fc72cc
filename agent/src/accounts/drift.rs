//! Puts right what somebody changes of the rights that checks run with, as soon as it is changed: one watch for each kind
//! of object, of what carries active-monitor's label. What others made is not even seen here, and an object whose label
//! somebody took away is his from then on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use active_monitor_core::rbac::{Account, Repairs};
use futures::StreamExt;
use futures::stream::select_all;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use kube::runtime::events::{Event as News, EventType, Recorder};
use kube::runtime::watcher::{self, Event};

use super::objects::{Kind, Object};
use super::{AccountError, Accounts};
use crate::metrics::Counters;
use crate::request::request;

/// What an API server that does not answer left undone is tried again after this time.
const RETRY: Duration = Duration::from_secs(2);
/// How often what is forgotten is looked for.
const LOOK: Duration = Duration::from_secs(10);

/// Follows the objects of the accounts.
pub struct Drift {
    accounts: Accounts,
    recorder: Recorder,
    counters: Counters,
    began: Instant,
    /// What a list that is under way has named so far, by namespace and name.
    listed: HashMap<Kind, BTreeSet<(String, String)>>,
    /// Accounts to be put right, and when.
    due: BTreeMap<Account, Duration>,
    repairs: HashMap<Account, Repairs>,
    /// Kinds of which it was said that they cannot be watched.
    told: BTreeSet<Kind>,
}

impl Drift {
    /// Of these accounts.
    pub fn new(accounts: Accounts, recorder: Recorder, counters: Counters) -> Drift {
        Drift {
            accounts,
            recorder,
            counters,
            began: Instant::now(),
            listed: HashMap::new(),
            due: BTreeMap::new(),
            repairs: HashMap::new(),
            told: BTreeSet::new(),
        }
    }

    /// Puts right what is changed, until the watches' end.
    pub async fn follow(mut self) {
        let watches = Kind::ALL.map(|kind| self.accounts.objects.watch(kind).map(move |event| (kind, event)).boxed());
        let mut events = select_all(watches);
        loop {
            let now = self.began.elapsed();
            let next = self.due.values().min().map_or(LOOK, |at| at.saturating_sub(now).min(LOOK));
            tokio::select! {
                event = events.next() => match event {
                    Some((kind, event)) => self.take(kind, event),
                    None => return,
                },
                () = tokio::time::sleep(next) => {}
            }
            self.put_right().await;
        }
    }

    fn take(&mut self, kind: Kind, event: watcher::Result<Event<Object>>) {
        let known = self.accounts.known.lock();
        let suspects = match event {
            Ok(Event::Init) => {
                self.listed.insert(kind, BTreeSet::new());
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                let name = (object.namespace().unwrap_or_default(), object.name_any());
                self.listed.entry(kind).or_default().insert(name);
                known.differing(kind, &object)
            }
            Ok(Event::InitDone) => known.lacking(kind, &self.listed.remove(&kind).unwrap_or_default()),
            Ok(Event::Apply(object)) => known.differing(kind, &object),
            Ok(Event::Delete(object)) => {
                known.of_object(kind, &object.metadata).map(|(account, _)| account.clone()).collect()
            }
            Err(error) => {
                if self.told.insert(kind) {
                    tracing::warn!(?kind, %error, "cannot follow the rights of checks, trying again");
                }
                Vec::new()
            }
        };
        drop(known);
        let now = self.began.elapsed();
        for account in suspects {
            let at = self.repairs.get(&account).map_or(now, Repairs::next).max(now);
            self.due.entry(account).or_insert(at);
        }
    }

    async fn put_right(&mut self) {
        let now = self.began.elapsed();
        let due: Vec<Account> =
            self.due.iter().filter(|(_, at)| **at <= now).map(|(account, _)| account.clone()).collect();
        for account in due {
            match self.accounts.put_right(&account).await {
                Ok(written) if written.is_empty() => {}
                Ok(written) => {
                    let repairs = self.repairs.entry(account.clone()).or_default();
                    repairs.made(self.began.elapsed());
                    let repairs = *repairs;
                    self.tell(&account, &written, repairs);
                }
                Err(AccountError::Refused(refusal)) => {
                    tracing::warn!(?account, %refusal, "cannot put rights right that somebody changed");
                    // The next run says it where its author looks.
                    self.accounts.doubt(&account);
                }
                Err(AccountError::Request(error)) => {
                    tracing::debug!(?account, %error, "cannot put rights right yet, trying again");
                    // The others would not fare better.
                    let again = self.began.elapsed() + RETRY;
                    self.due.values_mut().for_each(|at| *at = (*at).max(again));
                    break;
                }
            }
            self.due.remove(&account);
        }
        self.repairs.retain(|_, repairs| !repairs.is_over(now));
        let contested = self.repairs.values().filter(|repairs| repairs.is_contest()).count();
        self.counters.rights_contested.set(i64::try_from(contested).unwrap_or(i64::MAX));
    }

    fn tell(&self, account: &Account, written: &[(Kind, Object)], repairs: Repairs) {
        let (key, pause) = (account.key(), repairs.pause().as_secs());
        for (kind, object) in written {
            let resource = kind.resource();
            self.counters.rights_restored.with_label_values(&[&resource.kind]).inc();
            let (name, kind) = (object.name_any(), &resource.kind);
            let (reason, note) = if repairs.is_contest() {
                tracing::warn!(kind, name, account = key, pause_s = pause, "rights are changed again and again");
                let note = format!(
                    "somebody changes the rights of account {key} again and again: the next change stays for {pause} s"
                );
                ("RightsContested", note)
            } else {
                tracing::info!(kind, name, account = key, "rights that somebody changed are put right");
                let note = format!("somebody changed it, and the checks that run as account {key} need it as it was");
                ("RightsRestored", note)
            };
            let news = News {
                type_: EventType::Warning,
                reason: reason.into(),
                note: Some(note),
                action: "PutRight".into(),
                secondary: None,
            };
            let reference = ObjectReference {
                api_version: Some(resource.api_version.clone()),
                kind: Some(resource.kind.clone()),
                name: Some(name),
                namespace: object.namespace(),
                uid: object.uid(),
                ..ObjectReference::default()
            };
            let recorder = self.recorder.clone();
            tokio::spawn(async move {
                if let Err(error) = request(recorder.publish(&news, &reference)).await {
                    tracing::debug!(%error, "cannot publish an event");
                }
            });
        }
    }
}
