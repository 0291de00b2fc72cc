//! The data base that the replicas share, as the store keeps it.

use super::*;

/// What `follow` reads: names, never what changed.
#[derive(Clone)]
enum Note {
    Session(&'static str),
    Check(&'static str, String),
    Whole(&'static str),
}

#[derive(Clone)]
struct Row {
    replica: usize,
    epoch: u64,
    link: Option<ShownLink>,
}

/// Its tables.
#[derive(Default)]
pub(super) struct Db {
    epoch: u64,
    sessions: BTreeMap<&'static str, Row>,
    pub(super) checks: BTreeMap<(&'static str, String), ShownCheck>,
    notes: Vec<Note>,
    beats: BTreeMap<usize, i64>,
}

impl Db {
    pub(super) fn open(&mut self, cluster: &'static str, replica: usize) -> u64 {
        self.epoch += 1;
        self.sessions.insert(cluster, Row { replica, epoch: self.epoch, link: None });
        self.notes.push(Note::Session(cluster));
        self.epoch
    }

    pub(super) fn publish(&mut self, replica: usize, began: i64, all: &[Publication]) -> Vec<String> {
        self.beats.insert(replica, began);
        let mut refused = Vec::new();
        for publication in all {
            let cluster = *CLUSTERS.iter().find(|name| **name == publication.cluster).unwrap();
            let row = self.sessions.get_mut(cluster).unwrap();
            if (row.replica, row.epoch) != (replica, publication.epoch) {
                refused.push(publication.cluster.clone());
                continue;
            }
            if let Some(link) = &publication.link {
                row.link = Some(link.clone());
                self.notes.push(if publication.is_whole { Note::Whole(cluster) } else { Note::Session(cluster) });
            }
            let stays = |uid: &String| publication.checks.iter().any(|check| check.state.uid == *uid);
            let of_cluster = self.checks.keys().filter(|(name, _)| *name == cluster);
            let unnamed: Vec<_> = of_cluster.map(|(_, uid)| uid.clone()).filter(|uid| !stays(uid)).collect();
            for uid in if publication.is_whole { unnamed } else { publication.removed.clone() } {
                self.checks.remove(&(cluster, uid.clone()));
                self.notes.push(Note::Check(cluster, uid));
            }
            for check in &publication.checks {
                let uid = check.state.uid.clone();
                if self.checks.insert((cluster, uid.clone()), check.clone()).as_ref() != Some(check) {
                    self.notes.push(Note::Check(cluster, uid));
                }
            }
        }
        refused
    }

    /// What changed after so many notes, as it is now.
    pub(super) fn follow(&self, after: usize, now: i64) -> Read {
        let mut named = BTreeMap::<&'static str, (bool, BTreeSet<String>)>::new();
        for note in &self.notes[after..] {
            match note {
                Note::Session(cluster) => drop(named.entry(cluster).or_default()),
                Note::Check(cluster, uid) => drop(named.entry(cluster).or_default().1.insert(uid.clone())),
                Note::Whole(cluster) => named.entry(cluster).or_default().0 = true,
            }
        }
        if after == 0 {
            named = self.sessions.keys().map(|cluster| (*cluster, (true, BTreeSet::new()))).collect();
        }
        let clusters = named.into_iter().filter_map(|(cluster, (is_whole, uids))| {
            let row = self.sessions.get(cluster)?;
            let rows =
                self.checks.iter().filter(|((name, uid), _)| *name == cluster && (is_whole || uids.contains(uid)));
            let checks: Vec<ShownCheck> = rows.map(|(_, check)| check.clone()).collect();
            let gone = |uid: &String| !self.checks.contains_key(&(cluster, uid.clone()));
            let elsewhere = Elsewhere {
                cluster: cluster.to_owned(),
                replica: row.replica.to_string(),
                epoch: row.epoch,
                link: row.link.clone(),
                checks,
                removed: uids.into_iter().filter(gone).collect(),
                is_whole,
            };
            Some((row.replica, elsewhere))
        });
        let beats = self.beats.iter().map(|(id, at)| (*id, now - at)).collect();
        Read { revision: self.notes.len(), beats, clusters: clusters.collect() }
    }
}

pub(super) struct Read {
    pub(super) revision: usize,
    /// Ages.
    pub(super) beats: Vec<(usize, i64)>,
    pub(super) clusters: Vec<(usize, Elsewhere)>,
}
