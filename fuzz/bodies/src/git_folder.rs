//! The files of a Git folder: what is read has each name once, and each finding says where.

use active_monitor_core::document::Input;
use active_monitor_core::gitops::read;

/// Runs the target on one input.
pub fn body(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let inputs = text.split('\0').enumerate();
    let inputs = inputs.map(|(number, text)| Input { name: format!("{number}.yaml"), text: text.to_owned() });
    match read(&inputs.collect::<Vec<_>>()) {
        Ok(documents) => {
            for ((kind, name), document) in documents {
                assert_eq!(document.wanted.key(), (kind, name.as_str()));
            }
        }
        Err(findings) => assert!(!findings.is_empty() && findings.iter().all(|finding| !finding.message.is_empty())),
    }
}
