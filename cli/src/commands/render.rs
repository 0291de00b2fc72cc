//! `fleetcheck render`: the objects that an agent would create for a HealthCheck.

use active_monitor_core::check::{Check, Job, Source};
use active_monitor_core::healthcheck::HealthCheck;
use active_monitor_core::manifest::Manifest;
use active_monitor_core::rbac::{self, Account};
use active_monitor_core::run::{RunKey, RunKind};
use active_monitor_core::view::List;
use jiff::Timestamp;
use serde_json::Value;

use super::lint;
use crate::args::{Format, RenderArgs};
use crate::documents::{self, Object, Severity};
use crate::{Error, Exit, Streams, World, output};

/// Stands where a file has no uid, as none has that was written by hand.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

pub(super) fn run(args: &RenderArgs, format: Format, world: &World, streams: &mut Streams<'_>) -> Result<Exit, Error> {
    let mut findings = Vec::new();
    let mut list = List { items: Vec::new() };
    let mut checks = 0_usize;
    for input in documents::read(std::slice::from_ref(&args.file), streams.input)? {
        for object in documents::objects(&input, &mut findings) {
            match check(&object) {
                Some(check) => {
                    checks += 1;
                    list.items.extend(objects(&check, (world.now)(), streams)?);
                }
                None => findings.extend(lint::lint(&object).into_iter().flatten()),
            }
        }
    }
    findings.retain(|finding| finding.severity == Severity::Error);
    for finding in &findings {
        writeln!(streams.err, "{finding}")?;
    }
    match format {
        Format::Json => writeln!(streams.out, "{}", serde_json::to_string_pretty(&list)?)?,
        Format::Table | Format::Yaml => {
            for (index, object) in list.items.iter().enumerate() {
                let separator = if index == 0 { "" } else { "---\n" };
                write!(streams.out, "{separator}{}", output::yaml(object)?)?;
            }
        }
    }
    if checks == 0 && findings.is_empty() {
        writeln!(streams.err, "the file has no HealthCheck")?;
    }
    Ok(if checks > 0 && findings.is_empty() { Exit::Fine } else { Exit::Found })
}

/// The check that an object says, if it is a HealthCheck and can be run.
fn check(object: &Object) -> Option<Check> {
    let mut resource: HealthCheck = (object.kind() == "HealthCheck").then(|| object.read().ok()).flatten()?;
    let meta = &mut resource.metadata;
    meta.uid.get_or_insert_with(|| NO_UID.to_owned());
    meta.namespace.get_or_insert_with(|| "default".to_owned());
    Check::parse(&resource).ok()
}

/// For each job its account, the account's rights, and the Workflow of a run that is due at `slot`.
fn objects(check: &Check, slot: Timestamp, streams: &mut Streams<'_>) -> Result<Vec<Value>, Error> {
    let mut objects = Vec::new();
    for job in [RunKind::HealthCheck, RunKind::Remedy].into_iter().filter_map(|kind| check.job(kind)) {
        let account = Account::of(check, job);
        objects.push(account.service_account());
        objects.push(account.role(&rbac::union(job.rules.iter()), false));
        objects.push(account.binding(false));
        match workflow(check, job, slot) {
            Ok(workflow) => objects.push(workflow),
            Err(place) => writeln!(
                streams.err,
                "the {} workflow is read from {} at each run",
                job.kind,
                output::printable(place)
            )?,
        }
    }
    Ok(objects)
}

/// The Workflow, or where its text is.
fn workflow<'a>(check: &Check, job: &'a Job, slot: Timestamp) -> Result<Value, &'a str> {
    match &job.source {
        Source::Url { url: place, verify_cert: _ } | Source::File { path: place } => Err(place),
        Source::Inline(text) => {
            let slot = Timestamp::from_second(slot.as_second()).unwrap_or(slot);
            let key = RunKey { check_uid: check.uid.clone(), kind: job.kind, slot };
            // A check that was parsed has a text that can be.
            Ok(Manifest::parse(text).map(|manifest| manifest.workflow(check, job, &key)).unwrap_or_default())
        }
    }
}
