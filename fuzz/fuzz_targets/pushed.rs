//! What a hub pushes: only what the policy of the cluster allows comes through.

#![no_main]

use active_monitor_core::check::Check;
use active_monitor_core::policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let policy = Policy { namespaces: ["health".to_owned()].into(), ..Policy::default() };
    if let Ok(admitted) = policy.admit("pushed", text) {
        assert_eq!(admitted.metadata.namespace.as_deref(), Some("health"));
        let check = Check::parse(&admitted).expect("what is admitted can be run");
        assert!(check.remedy.is_none() && check.workflow.namespace == "health");
    }
});
