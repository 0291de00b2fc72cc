//! The frames of a session and what is only found in them.

use active_monitor_core::policy::{MAX_SETTINGS, PolicySetting};
use active_monitor_core::session::frame::{
    AgentFrame, Counted, Definition, DefinitionResult, DefinitionStatus, Heartbeat, Hello, HubFrame, Welcome,
};

use super::{
    MAX_HEALTH_CHECK_BYTES, MAX_MESSAGE_BYTES, WireError, bounded, cut, identity, known, list, message, text, time,
    to_wire_time,
};
use crate::v1;
use crate::v1::agent_frame::Frame as FromAgent;
use crate::v1::check_update::Change;
use crate::v1::hub_frame::Frame as FromHub;

impl From<AgentFrame> for v1::AgentFrame {
    fn from(frame: AgentFrame) -> Self {
        let update = |change| FromAgent::CheckUpdate(v1::CheckUpdate { change: Some(change) });
        let frame = match frame {
            AgentFrame::Hello(hello) => FromAgent::Hello(hello.into()),
            AgentFrame::Snapshot { checks, last } => {
                FromAgent::Snapshot(v1::Snapshot { checks: checks.into_iter().map(Into::into).collect(), last })
            }
            AgentFrame::CheckUpsert(state) => update(Change::Upsert((*state).into())),
            AgentFrame::CheckRemoved(uid) => update(Change::RemovedUid(uid)),
            AgentFrame::Reports { reports, through_seq: _ } => {
                FromAgent::Reports(v1::Reports { reports: reports.into_iter().map(Into::into).collect() })
            }
            AgentFrame::Heartbeat(heartbeat) => FromAgent::Heartbeat(heartbeat.into()),
            AgentFrame::DefinitionsStatus { nonce, statuses } => {
                let statuses = statuses.into_iter().map(Into::into).collect();
                FromAgent::DefinitionsStatus(v1::DefinitionsStatus { nonce, statuses })
            }
            AgentFrame::CommandAnswer(answer) => FromAgent::CommandAnswer(answer.into()),
            AgentFrame::SelfTest(self_test) => FromAgent::SelfTest(self_test.into()),
            AgentFrame::Lacking(runs) => {
                FromAgent::Lacking(v1::Lacking { runs: runs.into_iter().map(Into::into).collect() })
            }
        };
        v1::AgentFrame { frame: Some(frame) }
    }
}

impl TryFrom<v1::AgentFrame> for AgentFrame {
    type Error = WireError;

    fn try_from(frame: v1::AgentFrame) -> Result<Self, WireError> {
        Ok(match frame.frame.ok_or(WireError::UnknownFrame)? {
            FromAgent::Hello(hello) => AgentFrame::Hello(hello.try_into()?),
            FromAgent::Snapshot(snapshot) => {
                AgentFrame::Snapshot { checks: list(snapshot.checks)?, last: snapshot.last }
            }
            FromAgent::CheckUpdate(update) => {
                match update.change.ok_or(WireError::Missing { field: "CheckUpdate.change" })? {
                    Change::Upsert(state) => AgentFrame::CheckUpsert(Box::new(state.try_into()?)),
                    Change::RemovedUid(uid) => AgentFrame::CheckRemoved(identity("CheckUpdate.removed_uid", uid)?),
                }
            }
            // One that is left out is a gap in the history, and its number is taken in all the same.
            FromAgent::Reports(v1::Reports { reports }) => {
                let through_seq = reports.iter().map(|report| report.seq).max().unwrap_or_default();
                AgentFrame::Reports { reports: known(reports)?, through_seq }
            }
            FromAgent::Heartbeat(heartbeat) => AgentFrame::Heartbeat(heartbeat.try_into()?),
            FromAgent::DefinitionsStatus(v1::DefinitionsStatus { nonce, statuses }) => {
                AgentFrame::DefinitionsStatus { nonce, statuses: list(statuses)? }
            }
            FromAgent::CommandAnswer(answer) => AgentFrame::CommandAnswer(answer.try_into()?),
            FromAgent::SelfTest(self_test) => AgentFrame::SelfTest(self_test.try_into()?),
            FromAgent::Lacking(v1::Lacking { runs }) => AgentFrame::Lacking(list(runs)?),
        })
    }
}

impl From<HubFrame> for v1::HubFrame {
    fn from(frame: HubFrame) -> Self {
        let frame = match frame {
            HubFrame::Welcome(welcome) => FromHub::Welcome(welcome.into()),
            HubFrame::Ack(seq) => FromHub::Ack(v1::Ack { seq }),
            HubFrame::Definitions { nonce, definitions } => {
                let definitions = definitions.into_iter().map(Into::into).collect();
                FromHub::Definitions(v1::Definitions { nonce, definitions })
            }
            HubFrame::Command(command) => FromHub::Command(command.into()),
            HubFrame::Mark(mark) => FromHub::Mark(v1::Mark { mark }),
            HubFrame::GoAway { reason, retry_after_ms } => {
                FromHub::GoAway(v1::GoAway { reason: cut(reason, MAX_MESSAGE_BYTES), retry_after_ms })
            }
        };
        v1::HubFrame { frame: Some(frame) }
    }
}

impl TryFrom<v1::HubFrame> for HubFrame {
    type Error = WireError;

    fn try_from(frame: v1::HubFrame) -> Result<Self, WireError> {
        Ok(match frame.frame.ok_or(WireError::UnknownFrame)? {
            FromHub::Welcome(welcome) => HubFrame::Welcome(welcome.try_into()?),
            FromHub::Ack(v1::Ack { seq }) => HubFrame::Ack(seq),
            FromHub::Definitions(v1::Definitions { nonce, definitions }) => {
                HubFrame::Definitions { nonce, definitions: list(definitions)? }
            }
            FromHub::Command(command) => HubFrame::Command(command.try_into()?),
            FromHub::Mark(v1::Mark { mark }) => HubFrame::Mark(identity("Mark.mark", mark)?),
            FromHub::GoAway(v1::GoAway { reason, retry_after_ms }) => {
                HubFrame::GoAway { reason: message("GoAway.reason", reason)?, retry_after_ms }
            }
        })
    }
}

impl From<Counted> for v1::CountedRun {
    fn from(Counted { check_uid, mark }: Counted) -> Self {
        v1::CountedRun { check_uid, mark: Some(to_wire_time(mark)) }
    }
}

impl TryFrom<v1::CountedRun> for Counted {
    type Error = WireError;

    fn try_from(v1::CountedRun { check_uid, mark }: v1::CountedRun) -> Result<Self, WireError> {
        Ok(Counted { check_uid: identity("CountedRun.check_uid", check_uid)?, mark: time("CountedRun.mark", mark)? })
    }
}

impl From<Hello> for v1::Hello {
    fn from(hello: Hello) -> Self {
        let Hello {
            cluster,
            cluster_uid,
            incarnation,
            agent_version,
            kubernetes_version,
            oldest_seq,
            next_seq,
            sent_at,
            dropped_reports,
            journal_id,
            hub_mark,
            policy,
        } = hello;
        v1::Hello {
            cluster,
            cluster_uid,
            incarnation,
            agent_version,
            kubernetes_version,
            oldest_seq,
            next_seq,
            sent_at: Some(to_wire_time(sent_at)),
            dropped_reports,
            journal_id,
            hub_mark,
            policy: policy.into_iter().take(MAX_SETTINGS).map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::Hello> for Hello {
    type Error = WireError;

    fn try_from(hello: v1::Hello) -> Result<Self, WireError> {
        if hello.policy.len() > MAX_SETTINGS {
            let count = hello.policy.len();
            return Err(WireError::TooMany { field: "Hello.policy", count, limit: MAX_SETTINGS });
        }
        Ok(Hello {
            cluster: identity("Hello.cluster", hello.cluster)?,
            cluster_uid: identity("Hello.cluster_uid", hello.cluster_uid)?,
            incarnation: identity("Hello.incarnation", hello.incarnation)?,
            agent_version: text("Hello.agent_version", hello.agent_version)?,
            kubernetes_version: text("Hello.kubernetes_version", hello.kubernetes_version)?,
            oldest_seq: hello.oldest_seq,
            next_seq: hello.next_seq,
            sent_at: time("Hello.sent_at", hello.sent_at)?,
            dropped_reports: hello.dropped_reports,
            journal_id: text("Hello.journal_id", hello.journal_id)?,
            hub_mark: text("Hello.hub_mark", hello.hub_mark)?,
            policy: list(hello.policy)?,
        })
    }
}

impl From<PolicySetting> for v1::PolicySetting {
    fn from(setting: PolicySetting) -> Self {
        let PolicySetting { name, value } = setting;
        v1::PolicySetting { name: cut(name, MAX_MESSAGE_BYTES), value: cut(value, MAX_MESSAGE_BYTES) }
    }
}

impl TryFrom<v1::PolicySetting> for PolicySetting {
    type Error = WireError;

    fn try_from(setting: v1::PolicySetting) -> Result<Self, WireError> {
        let v1::PolicySetting { name, value } = setting;
        if name.is_empty() {
            return Err(WireError::Missing { field: "PolicySetting.name" });
        }
        Ok(PolicySetting { name: message("PolicySetting.name", name)?, value: message("PolicySetting.value", value)? })
    }
}

impl From<Welcome> for v1::Welcome {
    fn from(welcome: Welcome) -> Self {
        let Welcome { session_epoch, heartbeat_ms, lease_ms, max_unacked_reports, hub_version } = welcome;
        v1::Welcome { session_epoch, heartbeat_ms, lease_ms, max_unacked_reports, hub_version }
    }
}

impl TryFrom<v1::Welcome> for Welcome {
    type Error = WireError;

    fn try_from(welcome: v1::Welcome) -> Result<Self, WireError> {
        let v1::Welcome { session_epoch, heartbeat_ms, lease_ms, max_unacked_reports, hub_version } = welcome;
        let hub_version = text("Welcome.hub_version", hub_version)?;
        Ok(Welcome { session_epoch, heartbeat_ms, lease_ms, max_unacked_reports, hub_version })
    }
}

impl From<Heartbeat> for v1::Heartbeat {
    fn from(heartbeat: Heartbeat) -> Self {
        let Heartbeat { sent_at, backlog, dropped_reports } = heartbeat;
        v1::Heartbeat { sent_at: Some(to_wire_time(sent_at)), backlog, dropped_reports }
    }
}

impl TryFrom<v1::Heartbeat> for Heartbeat {
    type Error = WireError;

    fn try_from(heartbeat: v1::Heartbeat) -> Result<Self, WireError> {
        let v1::Heartbeat { sent_at, backlog, dropped_reports } = heartbeat;
        Ok(Heartbeat { sent_at: time("Heartbeat.sent_at", sent_at)?, backlog, dropped_reports })
    }
}

impl From<Definition> for v1::Definition {
    fn from(definition: Definition) -> Self {
        let Definition { name, generation, health_check } = definition;
        v1::Definition { name, generation, health_check }
    }
}

impl TryFrom<v1::Definition> for Definition {
    type Error = WireError;

    fn try_from(definition: v1::Definition) -> Result<Self, WireError> {
        Ok(Definition {
            name: identity("Definition.name", definition.name)?,
            generation: definition.generation,
            health_check: bounded("Definition.health_check", definition.health_check, MAX_HEALTH_CHECK_BYTES)?,
        })
    }
}

impl From<DefinitionResult> for v1::DefinitionResult {
    fn from(result: DefinitionResult) -> Self {
        match result {
            DefinitionResult::Applied => v1::DefinitionResult::Applied,
            DefinitionResult::Refused => v1::DefinitionResult::Refused,
            DefinitionResult::Conflict => v1::DefinitionResult::Conflict,
            DefinitionResult::Failed => v1::DefinitionResult::Failed,
        }
    }
}

fn definition_result(field: &'static str, value: i32) -> Result<DefinitionResult, WireError> {
    match v1::DefinitionResult::try_from(value) {
        Ok(v1::DefinitionResult::Applied) => Ok(DefinitionResult::Applied),
        Ok(v1::DefinitionResult::Refused) => Ok(DefinitionResult::Refused),
        Ok(v1::DefinitionResult::Conflict) => Ok(DefinitionResult::Conflict),
        Ok(v1::DefinitionResult::Failed) => Ok(DefinitionResult::Failed),
        Ok(v1::DefinitionResult::Unspecified) => Err(WireError::Unknown { field, value }),
        // Whatever a newer agent did with it: nobody here knows that the cluster has it.
        Err(_) => Ok(DefinitionResult::Failed),
    }
}

impl From<DefinitionStatus> for v1::DefinitionStatus {
    fn from(status: DefinitionStatus) -> Self {
        let DefinitionStatus { name, generation, result, message } = status;
        v1::DefinitionStatus {
            name,
            generation,
            result: v1::DefinitionResult::from(result).into(),
            message: cut(message, MAX_MESSAGE_BYTES),
        }
    }
}

impl TryFrom<v1::DefinitionStatus> for DefinitionStatus {
    type Error = WireError;

    fn try_from(status: v1::DefinitionStatus) -> Result<Self, WireError> {
        Ok(DefinitionStatus {
            name: identity("DefinitionStatus.name", status.name)?,
            generation: status.generation,
            result: definition_result("DefinitionStatus.result", status.result)?,
            message: message("DefinitionStatus.message", status.message)?,
        })
    }
}
