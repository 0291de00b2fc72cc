//! Values of `match[]`, as anybody with a viewer's token may send them.

#![no_main]

use active_monitor_hub::metrics::Selection;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let texts: Vec<String> = text.split('\n').map(str::to_owned).collect();
    if let Err(why) = Selection::parse(&texts) {
        assert!(why.starts_with("match[]: "), "{why}");
    }
});
