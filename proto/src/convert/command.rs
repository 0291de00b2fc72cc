//! Commands, their answers, the pauses that they make, and what came of self-tests.

use active_monitor_core::command::{Answer, Command, Layer, Order, Pause, Refusal, Scope, Subject};
use active_monitor_core::self_test::{SelfTest, SelfTestOutcome};

use super::{MAX_MESSAGE_BYTES, WireError, cut, identity, message, text, time, to_wire_time};
use crate::v1;

impl From<Subject> for v1::Subject {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Checks => v1::Subject::Checks,
            Subject::Remedies => v1::Subject::Remedies,
        }
    }
}

fn subject(field: &'static str, value: i32) -> Result<Subject, WireError> {
    match v1::Subject::try_from(value) {
        Ok(v1::Subject::Checks) => Ok(Subject::Checks),
        Ok(v1::Subject::Remedies) => Ok(Subject::Remedies),
        Ok(v1::Subject::Unspecified) | Err(_) => Err(WireError::Unknown { field, value }),
    }
}

/// Empty means all.
fn scope(field: &'static str, namespace: String, name: String) -> Result<Scope, WireError> {
    if namespace.is_empty() && !name.is_empty() {
        return Err(WireError::Missing { field });
    }
    let some = |value: String| (!value.is_empty()).then_some(value);
    Ok(Scope { namespace: some(text(field, namespace)?), name: some(text(field, name)?) })
}

impl From<Command> for v1::Command {
    fn from(command: Command) -> Self {
        let Command { id, scope: Scope { namespace, name }, order } = command;
        let order = match order {
            Order::RunNow => v1::command::Order::RunNow(v1::RunNow {}),
            Order::Pause { subject, seconds, reason, by } => v1::command::Order::Pause(v1::Pause {
                subject: v1::Subject::from(subject).into(),
                seconds,
                reason: cut(reason, MAX_MESSAGE_BYTES),
                by,
            }),
            Order::Resume { subject } => {
                v1::command::Order::Resume(v1::Resume { subject: v1::Subject::from(subject).into() })
            }
            Order::SelfTest => v1::command::Order::SelfTest(v1::RunSelfTest {}),
        };
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        v1::Command { id, namespace, name, order: Some(order) }
    }
}

impl TryFrom<v1::Command> for Command {
    type Error = WireError;

    /// An order of a kind that a newer hub knows makes the frame one of an unknown kind.
    fn try_from(command: v1::Command) -> Result<Self, WireError> {
        let order = match command.order.ok_or(WireError::UnknownFrame)? {
            v1::command::Order::RunNow(v1::RunNow {}) => Order::RunNow,
            v1::command::Order::Pause(v1::Pause { subject: of, seconds, reason, by }) => Order::Pause {
                subject: subject("Pause.subject", of)?,
                seconds,
                reason: message("Pause.reason", reason)?,
                by: text("Pause.by", by)?,
            },
            v1::command::Order::Resume(v1::Resume { subject: of }) => {
                Order::Resume { subject: subject("Resume.subject", of)? }
            }
            v1::command::Order::SelfTest(v1::RunSelfTest {}) => Order::SelfTest,
        };
        let scope = scope("Command.namespace", command.namespace, command.name)?;
        Ok(Command { id: identity("Command.id", command.id)?, scope, order })
    }
}

impl From<Answer> for v1::CommandAnswer {
    fn from(answer: Answer) -> Self {
        let Answer { id, verdict } = answer;
        let (refused_by, message) = match verdict {
            Ok(done) => (v1::Layer::Unspecified, done),
            Err(Refusal { layer, reason }) => (
                match layer {
                    Layer::Hub => v1::Layer::Hub,
                    Layer::Policy => v1::Layer::Policy,
                    Layer::Agent => v1::Layer::Agent,
                    Layer::Kubernetes => v1::Layer::Kubernetes,
                },
                reason,
            ),
        };
        v1::CommandAnswer { id, refused_by: refused_by.into(), message: cut(message, MAX_MESSAGE_BYTES) }
    }
}

impl TryFrom<v1::CommandAnswer> for Answer {
    type Error = WireError;

    fn try_from(answer: v1::CommandAnswer) -> Result<Self, WireError> {
        let v1::CommandAnswer { id, refused_by, message: said } = answer;
        let said = message("CommandAnswer.message", said)?;
        let layer = match v1::Layer::try_from(refused_by) {
            Ok(v1::Layer::Unspecified) => None,
            Ok(v1::Layer::Hub) => Some(Layer::Hub),
            Ok(v1::Layer::Policy) => Some(Layer::Policy),
            // A layer that a newer agent knows is a part of the agent.
            Ok(v1::Layer::Agent) | Err(_) => Some(Layer::Agent),
            Ok(v1::Layer::Kubernetes) => Some(Layer::Kubernetes),
        };
        let verdict = match layer {
            None => Ok(said),
            Some(layer) => Err(Refusal::new(layer, said)),
        };
        Ok(Answer { id: identity("CommandAnswer.id", id)?, verdict })
    }
}

impl From<SelfTest> for v1::SelfTest {
    fn from(self_test: SelfTest) -> Self {
        let SelfTest { outcome, message, at } = self_test;
        let outcome = match outcome {
            SelfTestOutcome::Succeeded => v1::SelfTestOutcome::Succeeded,
            SelfTestOutcome::Failed => v1::SelfTestOutcome::Failed,
            SelfTestOutcome::TimedOut => v1::SelfTestOutcome::TimedOut,
            // What was not run is the answer to the command.
            SelfTestOutcome::NotRun | SelfTestOutcome::Unknown => v1::SelfTestOutcome::Unspecified,
        };
        let message = cut(message, MAX_MESSAGE_BYTES);
        v1::SelfTest { outcome: outcome.into(), message, at: Some(to_wire_time(at)) }
    }
}

impl TryFrom<v1::SelfTest> for SelfTest {
    type Error = WireError;

    fn try_from(self_test: v1::SelfTest) -> Result<Self, WireError> {
        let v1::SelfTest { outcome, message: said, at } = self_test;
        let outcome = match v1::SelfTestOutcome::try_from(outcome) {
            Ok(v1::SelfTestOutcome::Succeeded) => SelfTestOutcome::Succeeded,
            Ok(v1::SelfTestOutcome::Failed) => SelfTestOutcome::Failed,
            Ok(v1::SelfTestOutcome::TimedOut) => SelfTestOutcome::TimedOut,
            // Whatever a newer agent says: nobody here knows that it passed.
            Ok(v1::SelfTestOutcome::Unspecified) | Err(_) => SelfTestOutcome::Unknown,
        };
        Ok(SelfTest { outcome, message: message("SelfTest.message", said)?, at: time("SelfTest.at", at)? })
    }
}

impl From<Pause> for v1::ActivePause {
    fn from(pause: Pause) -> Self {
        let Pause { id, subject, scope: Scope { namespace, name }, until, reason, by } = pause;
        v1::ActivePause {
            id,
            subject: v1::Subject::from(subject).into(),
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
            until: Some(to_wire_time(until)),
            reason: cut(reason, MAX_MESSAGE_BYTES),
            by,
        }
    }
}

impl TryFrom<v1::ActivePause> for Pause {
    type Error = WireError;

    fn try_from(pause: v1::ActivePause) -> Result<Self, WireError> {
        Ok(Pause {
            id: identity("ActivePause.id", pause.id)?,
            subject: subject("ActivePause.subject", pause.subject)?,
            scope: scope("ActivePause.namespace", pause.namespace, pause.name)?,
            until: time("ActivePause.until", pause.until)?,
            reason: message("ActivePause.reason", pause.reason)?,
            by: text("ActivePause.by", pause.by)?,
        })
    }
}
