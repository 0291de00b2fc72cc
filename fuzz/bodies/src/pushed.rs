//! What a hub pushes: only what the policy of the cluster allows comes through.

use active_monitor_core::check::Check;
use active_monitor_core::policy::Policy;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let policy = Policy { namespaces: ["health".to_owned()].into(), ..Policy::default() };
    if let Ok(admitted) = policy.admit("pushed", text) {
        assert_eq!(admitted.metadata.namespace.as_deref(), Some("health"));
        let check = Check::parse(&admitted).expect("what is admitted can be run");
        assert!(check.remedy.is_none() && check.workflow.namespace == "health");
    }
}
