//! Who is told of an incident, and when: routes as people write them, and what is due on one of them.
//!
//! Level-triggered like the rest: [`Teller::due`] compares the open incidents with what was told. A notice that could not be
//! delivered is due again as it is then, so nothing queues up while a receiver is away.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::view::{Closed, Incident};

mod preview;
mod routes;
#[cfg(test)]
mod tests;

pub use preview::preview;
pub use routes::{Match, Receiver, Route, Routes};

/// How old an incident is when somebody is told of it: clusters that fail together are told of together.
pub const SETTLE: SignedDuration = SignedDuration::from_secs(10);
/// Most notices that are due at once; the rest is due in the next round.
pub const MAX_DUE: usize = 100;
/// Pause before what a receiver refused is said again; it doubles with each refusal.
const REFUSED_PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The longest of these pauses.
const MAX_REFUSED_PAUSE: SignedDuration = SignedDuration::from_hours(1);
/// An end that was refused this often, which takes some 7 hours, is said no more: nothing will come after it.
const MAX_REFUSED_ENDS: u32 = 16;

/// What is said of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeStatus {
    /// It is open.
    Firing,
    /// It goes on, and somebody knows: maintenance, an acknowledgement, a dependency.
    Silenced,
    /// It was closed.
    Resolved,
}

impl NoticeStatus {
    /// As in JSON and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            NoticeStatus::Firing => "firing",
            NoticeStatus::Silenced => "silenced",
            NoticeStatus::Resolved => "resolved",
        }
    }
}

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// What is said.
    pub status: NoticeStatus,
    /// Of which incident.
    pub incident: Arc<Incident>,
}

/// What was told on one route, and what is due.
#[derive(Debug)]
pub struct Teller {
    resend: SignedDuration,
    told: BTreeMap<String, (Timestamp, Notice)>,
    refused: BTreeMap<String, Refusal>,
}

/// A receiver that is well does not take this one notice.
#[derive(Debug)]
struct Refusal {
    status: NoticeStatus,
    widespread: bool,
    times: u32,
    at: Timestamp,
}

impl Refusal {
    /// Whether it is too early to try again. Something else is not held back, nor anything by a clock that was set back.
    fn holds_back(&self, now: Timestamp, Notice { status, incident }: &Notice) -> bool {
        let Refusal { status: refused, widespread, times, at } = self;
        let pause = REFUSED_PAUSE.checked_mul(1 << (times - 1).min(16)).unwrap_or(MAX_REFUSED_PAUSE);
        let since = now.duration_since(*at);
        let is_same = refused == status && *widespread == incident.widespread;
        is_same && !since.is_negative() && since < pause.min(MAX_REFUSED_PAUSE)
    }
}

impl Teller {
    /// One that says again what goes on each `resend`.
    pub fn new(resend: SignedDuration) -> Teller {
        Teller { resend, told: BTreeMap::new(), refused: BTreeMap::new() }
    }

    /// `closed` were closed of late: that the receiver heard of the end of those that `picks` wants is not known, so it is
    /// told once more. What came back is `open`, and the newest closing is how an incident ended.
    pub fn closed_before(
        mut self,
        closed: impl IntoIterator<Item = Incident>,
        open: &[Arc<Incident>],
        picks: impl Fn(&Incident) -> bool,
    ) -> Teller {
        let mut ended: Vec<Incident> =
            closed.into_iter().filter(|incident| !is_open(open, &incident.id) && picks(incident)).collect();
        ended.sort_by_key(|incident| incident.closed_at);
        self.told.extend(ended.into_iter().map(|incident| {
            let incident = Arc::new(incident);
            (incident.id.clone(), (Timestamp::MIN, Notice { status: NoticeStatus::Firing, incident }))
        }));
        self
    }

    /// The hub's clock was set by `by`: what was told was told as long ago as before.
    pub fn stepped(&mut self, by: SignedDuration) {
        for (at, _) in self.told.values_mut() {
            *at = at.saturating_add(by).unwrap_or(*at);
        }
    }

    /// What must be told at `now`: new incidents that `picks` wants, what changed for who must act, what goes on since
    /// `resend`, and the end of what is no longer open. What was refused waits a while, so that it takes nobody's place.
    pub fn due(&self, now: Timestamp, open: &[Arc<Incident>], picks: impl Fn(&Incident) -> bool) -> Vec<Notice> {
        let mut due: Vec<Notice> = open.iter().filter_map(|incident| self.due_of(now, incident, &picks)).collect();
        let over = self.told.iter().filter(|(id, _)| !is_open(open, id)).map(|(_, (_, notice))| notice);
        due.extend(over.map(|notice| Notice { status: NoticeStatus::Resolved, incident: notice.incident.clone() }));
        due.retain(|notice| {
            !self.refused.get(&notice.incident.id).is_some_and(|refusal| refusal.holds_back(now, notice))
        });
        due.truncate(MAX_DUE);
        due
    }

    fn due_of(&self, now: Timestamp, incident: &Arc<Incident>, picks: impl Fn(&Incident) -> bool) -> Option<Notice> {
        let status = if incident.silenced { NoticeStatus::Silenced } else { NoticeStatus::Firing };
        let is_due = match self.told.get(&incident.id) {
            Some((_, told)) if told.status != status => true,
            // Of what is silenced nothing more is said.
            Some(_) if incident.silenced => false,
            Some((at, told)) => {
                told.incident.widespread != incident.widespread || now.duration_since(*at) >= self.resend
            }
            None => {
                let age = now.duration_since(incident.first_seen);
                // One that begins later than now was seen before the clock was set back.
                let is_settled = age >= SETTLE || age.is_negative();
                !incident.silenced && incident.recovered_at.is_none() && is_settled && picks(incident)
            }
        };
        is_due.then(|| Notice { status, incident: incident.clone() })
    }

    /// These were delivered.
    pub fn delivered(&mut self, now: Timestamp, notices: &[Notice]) {
        for notice in notices {
            let id = notice.incident.id.clone();
            self.refused.remove(&id);
            match notice.status {
                NoticeStatus::Resolved => drop(self.told.remove(&id)),
                NoticeStatus::Firing | NoticeStatus::Silenced => drop(self.told.insert(id, (now, notice.clone()))),
            }
        }
    }

    /// The receiver took others but not this one. It is due again after a pause of its own. True: it is an end, and is given up.
    pub fn refused(&mut self, now: Timestamp, notice: &Notice) -> bool {
        let Notice { status, incident } = notice;
        let times = self.refusals(notice).saturating_add(1);
        if *status == NoticeStatus::Resolved && times >= MAX_REFUSED_ENDS {
            self.told.remove(&incident.id);
            self.refused.remove(&incident.id);
            return true;
        }
        let refusal = Refusal { status: *status, widespread: incident.widespread, times, at: now };
        self.refused.insert(incident.id.clone(), refusal);
        false
    }

    /// How often a notice was refused one after the other.
    pub fn refusals(&self, Notice { status, incident }: &Notice) -> u32 {
        let refusal = self.refused.get(&incident.id).filter(|refusal| refusal.status == *status);
        refusal.map_or(0, |refusal| refusal.times)
    }

    /// Forgets refusals of what is over and was never told.
    pub fn forget_over(&mut self, open: &[Arc<Incident>]) {
        let told = &self.told;
        self.refused.retain(|id, _| told.contains_key(id) || is_open(open, id));
    }

    /// When the receiver last took a notice of this incident.
    pub fn told_at(&self, incident: &Incident) -> Option<Timestamp> {
        self.told.get(&incident.id).map(|(at, _)| *at)
    }

    /// The incident as it was told before, where its labels were others than now: Alertmanager knows an alert by them.
    pub fn relabelled(&self, notice: &Notice) -> Option<Arc<Incident>> {
        let (_, told) = self.told.get(&notice.incident.id)?;
        (labels(&told.incident) != labels(&notice.incident)).then(|| told.incident.clone())
    }
}

fn is_open(open: &[Arc<Incident>], id: &str) -> bool {
    open.iter().any(|incident| incident.id == id)
}

/// The labels of an incident as an alert. They do not follow which clusters are in it, so that it stays one alert.
pub fn labels(incident: &Incident) -> BTreeMap<&'static str, String> {
    let severity = if incident.widespread { "critical" } else { "warning" };
    let mut labels = BTreeMap::from([
        ("alertname", "ActiveMonitorIncident".to_owned()),
        ("incident", incident.id.clone()),
        ("kind", incident.kind.as_str().to_owned()),
        ("subject", incident.subject.clone()),
        ("severity", severity.to_owned()),
    ]);
    let mut parts = incident.subject.split('/');
    if let (Some("check"), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) {
        labels.extend([("namespace", namespace.to_owned()), ("healthcheck_name", name.to_owned())]);
    }
    labels
}

/// What a person reads of a notice, in one line.
pub fn summary(Notice { status, incident }: &Notice) -> String {
    match (status, incident.closed) {
        (NoticeStatus::Firing, _) | (NoticeStatus::Resolved, None) => incident.title.clone(),
        (NoticeStatus::Silenced, _) => format!("{} (goes on; in maintenance or acknowledged)", incident.title),
        (NoticeStatus::Resolved, Some(Closed::Recovered)) => format!("{} (recovered)", incident.title),
        (NoticeStatus::Resolved, Some(Closed::Withdrawn)) => format!("{} (withdrawn)", incident.title),
        (NoticeStatus::Resolved, Some(Closed::Merged)) => format!("{} (part of another incident)", incident.title),
    }
}
