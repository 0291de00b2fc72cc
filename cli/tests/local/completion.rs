//! completion: a script for each shell.

use crate::run;

#[test]
fn there_is_a_script_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(&["completion", shell], "").out;
        assert!(script.contains("fleetcheck") && script.contains("annotate"), "{shell}");
    }
}
