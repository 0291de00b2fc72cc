//! The steps of a run in the simulated agent, as `agent/src/runs.rs` takes them: start, confirm, record, terminate.

use active_monitor_core::manifest::workflow_name;

use super::*;

impl World {
    pub(super) fn start_run(
        &mut self,
        me: Me,
        check: &Check,
        key: &RunKey,
        run_now: Option<String>,
    ) -> Result<Begun, StepError> {
        let now = self.now(me)?;
        if !self.ask(me, now, check, key)? {
            self.note("no room", (me.replica, key));
            return Ok(Begun::NoRoom);
        }
        let begun = self.begin(me, check, key, run_now);
        if let Ok(agent) = self.agent(me) {
            agent.book.give_back(key);
        }
        begun.map(|()| Begun::Yes)
    }

    /// Whether the API server has a remedy of this check that is news. No fault is drawn for the question, so that the seeds
    /// that are kept stay what they were: without an answer there would be no remedy, and none is made then either.
    fn finds_another(&mut self, me: Me, check: &Check) -> Result<bool, Dead> {
        let of_check = |workflow: &&Workflow| {
            workflow.key.as_ref().is_some_and(|key| key.check_uid == check.uid && key.kind == RunKind::Remedy)
        };
        let there: Vec<Seen> =
            self.server.workflows.values().filter(of_check).map(|found| found.seen.clone()).collect();
        let mut is_news = false;
        for seen in there {
            let agent = self.agent(me)?;
            let was_gone = agent.remember(&check.uid).gone.contains(&seen.workflow);
            let known = agent.workflows.entry(check.uid.clone()).or_default();
            if was_gone || !known.contains_key(&seen.workflow) {
                is_news = true;
                known.insert(seen.workflow.clone(), seen.clone());
                self.note("finds", (me.replica, &seen.workflow));
                self.disks[me.replica].created(&seen.key);
                self.show(me, &check.uid, seen)?;
            }
        }
        Ok(is_news)
    }

    fn begin(&mut self, me: Me, check: &Check, key: &RunKey, run_now: Option<String>) -> Result<(), StepError> {
        let now = self.now(me)?;
        let memory = self.agent(me)?.remember(&check.uid);
        let since = match &memory.trying {
            Some((trying, since)) if trying.kind == key.kind => *since,
            Some(_) | None => {
                memory.trying = Some((key.clone(), now));
                now
            }
        };
        let waited = now.duration_since(since).as_secs();
        let reason = match self.try_start(me, check, key, run_now)? {
            Ok(()) => {
                self.agent(me)?.remember(&check.uid).trying = None;
                return Ok(());
            }
            Err(Refused::Run(Reason::RbacRefused)) if waited < RBAC_PATIENCE_SECONDS => return Err(StepError::Again),
            Err(Refused::Run(reason)) => reason,
            Err(Refused::Later) if waited < i64::from(check.timeout_seconds(key.kind, key.slot)) => {
                return Err(StepError::Again);
            }
            Err(Refused::Later) => Reason::CreateRefused,
        };
        let now = self.now(me)?;
        let memory = self.agent(me)?.remember(&check.uid);
        memory.trying = None;
        if let Some(job) = check.job(key.kind) {
            memory.forget(&format!("{}/{}", job.namespace, workflow_name(&job.prefix, key)));
        }
        self.settle(me, ended_without_workflow(now, check, key, None, reason, "refused".into()))
    }

    fn try_start(
        &mut self,
        me: Me,
        check: &Check,
        key: &RunKey,
        run_now: Option<String>,
    ) -> Result<Result<(), Refused>, StepError> {
        let Some(job) = check.job(key.kind) else { return Ok(Ok(())) };
        if key.kind == RunKind::Remedy && self.finds_another(me, check)? {
            return Ok(Ok(()));
        }
        let name = format!("{}/{}", job.namespace, workflow_name(&job.prefix, key));
        let intent = Intent { key: key.clone(), workflow: name.clone(), created: false, run_now: run_now.clone() };
        if run_now.is_some() {
            // A request is obeyed once, whatever becomes of it.
            self.intend(me, intent.clone())?;
        }
        match self.fault(60) {
            0 => return Ok(Err(Refused::Run(Reason::SourceUnavailable))),
            1 => return Ok(Err(Refused::Run(Reason::RbacRefused))),
            2 => return Ok(Err(Refused::Later)),
            _ => {}
        }
        let Source::Inline(text) = &job.source else { panic!("the sources here are inline") };
        let object = Manifest::parse(text).unwrap().workflow(check, job, key);
        assert_eq!(name, format!("{}/{}", job.namespace, object["metadata"]["name"].as_str().unwrap()));
        self.intend(me, intent)?;
        let labels = serde_json::from_value(object["metadata"]["labels"].clone()).unwrap();
        let labelled = key_of_labels(&labels).unwrap();
        assert_eq!(labelled, *key, "a workflow's labels name its run");
        let deadline = object["spec"]["activeDeadlineSeconds"].as_u64().and_then(|s| u32::try_from(s).ok());
        let owned = object["metadata"].get("ownerReferences").is_some();
        let of_check = check.name.clone();
        self.create(me, check, key, name, move |world, name| {
            let (fate, ends_at) = world.fate();
            let seen = Seen {
                key: labelled.clone(),
                workflow: name,
                created: whole(world.t),
                run_now,
                warning: String::new(),
                deadline_seconds: deadline,
                status: WorkflowStatus::default(),
            };
            let (key, by_agent) = (Some(labelled), true);
            Workflow { seen, check: of_check, key, by_agent, owned, fate, ends_at, done_at: None, shutdown: false }
        })
    }

    fn intend(&mut self, me: Me, intent: Intent) -> Result<(), StepError> {
        self.pause(me)?;
        if self.fault(80) == 0 {
            return Err(StepError::Again);
        }
        self.note("intend", (me.replica, &intent.workflow, &intent.key));
        let key = intent.key.clone();
        let is_new = !self.disks[me.replica].is_open(&key);
        self.intended(&key, intent.run_now.as_deref());
        self.disks[me.replica].intend(intent);
        let limits = self.agent(me)?.book.limits;
        if is_new
            && let Err(broken) =
                invariants::of_capacity(limits, &self.in_flight(me.replica), &self.namespaces[&key.check_uid])
        {
            panic!("{broken}");
        }
        Ok(())
    }

    fn create(
        &mut self,
        me: Me,
        check: &Check,
        key: &RunKey,
        name: String,
        make: impl FnOnce(&mut World, String) -> Workflow + 'static,
    ) -> Result<Result<(), Refused>, StepError> {
        let of = name.clone();
        self.agent(me)?.remember(&check.uid).gone.remove(&name);
        let answer = self.write(me, move |world| {
            let workflow = make(world, of);
            world.store_workflow(workflow)
        })?;
        let seen = match answer {
            Ok(seen) => seen,
            Err(Refusal::Conflict) => {
                let of = name.clone();
                let existing = self.read(me, move |world| world.get(&of))?.map_err(|_| StepError::Again)?;
                if existing.1.as_ref() != Some(key) {
                    return Ok(Err(Refused::Run(Reason::CreateRefused)));
                }
                existing.0
            }
            Err(Refusal::Forbidden | Refusal::NotFound) => {
                return Ok(Err(Refused::Run(Reason::CreateRefused)));
            }
            Err(Refusal::Unknown) => {
                self.agent(me)?.remember(&check.uid).unclear.insert(name);
                return Ok(Err(Refused::Later));
            }
            Err(Refusal::NotSent) => {
                let memory = self.agent(me)?.remember(&check.uid);
                if !memory.unclear.contains(&name) {
                    memory.gone.insert(name);
                }
                return Ok(Err(Refused::Later));
            }
        };
        self.note("created", (me.replica, key));
        self.disks[me.replica].created(key);
        self.ledger.sure.insert(name.clone());
        if !self.disks[me.replica].intents(&check.uid).iter().any(|intent| intent.key == *key) {
            let now = self.now(me)?;
            let message = "the check was deleted while it ran".into();
            let run = ended_without_workflow(now, check, key, Some(name), Reason::WorkflowVanished, message);
            self.settle(me, run)?;
            return Ok(Ok(()));
        }
        self.show(me, &check.uid, seen)?;
        Ok(Ok(()))
    }

    /// A workflow that the API server has answered with.
    fn show(&mut self, me: Me, uid: &str, seen: Seen) -> Result<(), Dead> {
        let now = self.now(me)?;
        let memory = self.agent(me)?.remember(uid);
        memory.gone.remove(&seen.workflow);
        memory.unclear.remove(&seen.workflow);
        memory.created.insert(seen.workflow.clone(), (seen, now));
        Ok(())
    }

    pub(super) fn confirm(&mut self, me: Me, uid: &str, workflow: &str) -> Result<(), StepError> {
        let name = workflow.to_owned();
        let found = match self.read(me, move |world| world.get(&name))? {
            Ok((seen, key)) => key.filter(|key| key.check_uid == uid).map(|_| seen),
            Err(Refusal::NotFound) => None,
            Err(_) => return Err(StepError::Again),
        };
        self.note("confirm", (me.replica, workflow, found.is_some()));
        match found {
            Some(seen) => {
                self.disks[me.replica].created(&seen.key);
                self.ledger.sure.insert(workflow.to_owned());
                let now = self.now(me)?;
                let agent = self.agent(me)?;
                agent.remember(uid).asked.insert(workflow.to_owned(), now);
                agent.workflows.entry(uid.to_owned()).or_default().insert(workflow.to_owned(), seen.clone());
                self.show(me, uid, seen)?;
            }
            None => {
                let memory = self.agent(me)?.remember(uid);
                memory.created.remove(workflow);
                memory.gone.insert(workflow.to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, me: Me, run: Run) -> Result<(), StepError> {
        self.pause(me)?;
        if self.fault(80) == 0 {
            return Err(StepError::Again);
        }
        let (uid, workflow) = (run.key.check_uid.clone(), run.workflow.clone().unwrap_or_default());
        self.note("settle", (me.replica, &run.key, run.outcome, run.reason));
        if self.disks[me.replica].settle(run.clone()) {
            self.recorded(me.replica, run);
        }
        let now = self.now(me)?;
        self.freed(me, now)?;
        self.pause(me)?;
        let memory = self.agent(me)?.remember(&uid);
        memory.created.remove(&workflow);
        memory.forget(&workflow);
        Ok(())
    }

    pub(super) fn terminate(&mut self, me: Me, workflow: String) -> Result<(), StepError> {
        // That it fails is only logged.
        self.write(me, move |world| world.shut_down(&workflow))?.ok();
        Ok(())
    }
}
