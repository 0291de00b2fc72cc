//! `get sources`, and the line of `status`.

use active_monitor_cli::Exit;
use active_monitor_core::document::Finding;
use active_monitor_core::gitops::whole;
use active_monitor_core::view::{SourceState, SourceView};

use crate::hub::{Fleet, Hub};

fn source(state: SourceState) -> SourceView {
    SourceView {
        folder: "/git/current".to_owned(),
        state,
        revision: Some("1111".to_owned()),
        refused_revision: None,
        synced_at: None,
        problems: Vec::new(),
        waiting: vec!["east".to_owned()],
        objects: Vec::new(),
    }
}

fn refused() -> SourceView {
    let problem =
        Finding { file: "a.yaml".to_owned(), line: 7, column: 3, field: "spec.cron".to_owned(), ..whole("wrong") };
    SourceView { refused_revision: Some("2222".to_owned()), problems: vec![problem], ..source(SourceState::Refused) }
}

#[test]
fn a_refused_folder_is_found_with_its_problems() {
    let hub = |source| Hub::start(Fleet { sources: vec![source], ..Fleet::default() });
    let ran = hub(source(SourceState::InForce)).run(&["get", "sources"]);
    insta::assert_snapshot!(ran.out, @r"
    FOLDER         STATE     REVISION   OBJECTS   WAITING
    /git/current   InForce   1111       0         east
    ");
    assert_eq!(ran.exit, Exit::Fine);
    let ran = hub(refused()).run(&["get", "sources"]);
    insta::assert_snapshot!(ran.out, @r"
    FOLDER         STATE     REVISION   OBJECTS   WAITING
    /git/current   Refused   1111       0         east
    a.yaml:7:3: spec.cron: wrong
    ");
    assert_eq!(ran.exit, Exit::Found);
    let none = Hub::start(Fleet::default()).run(&["get", "sources"]);
    assert_eq!((none.exit, none.err.as_str()), (Exit::Fine, "the hub watches no folder; its flag is --git-folder\n"));
}

#[test]
fn status_has_a_line_of_it() {
    let status = |source| Hub::start(Fleet { sources: vec![source], ..Fleet::default() }).run(&["status"]);
    let fine = status(source(SourceState::InForce));
    assert!(fine.out.ends_with("\nGit: /git/current 1111 is in force\n"), "{}", fine.out);
    assert_eq!(fine.exit, Exit::Fine);
    let wrong = status(refused());
    let expected =
        "\nGit: /git/current 2222 is refused, what was before it stays in force: a.yaml:7:3: spec.cron: wrong\n";
    assert!(wrong.out.ends_with(expected), "{}", wrong.out);
    assert_eq!(wrong.exit, Exit::Found);
}
