//! What the documents say of the tests.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use crate::fleet::project;

    /// Names of all functions in the project's Rust files.
    fn functions(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() {
                if !["target", "node_modules", ".git"].iter().any(|skipped| name == *skipped) {
                    functions(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let named = text.lines().filter_map(|line| line.split_once("fn ")?.1.split_once(['(', '<']));
                found.extend(named.map(|(name, _)| name.to_owned()));
            }
        }
    }

    /// The texts in backticks of the tables' last columns.
    fn named(document: &str) -> Vec<&str> {
        let rows = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| fault"));
        let last = rows.filter_map(|row| row.trim_end().trim_end_matches('|').rsplit_once("| ")).map(|(_, last)| last);
        last.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
    }

    /// Modules are named there too, and have at most one underscore.
    #[test]
    fn every_test_that_stands_beside_a_failure_or_an_event_exists() {
        let read = |name: &str| std::fs::read_to_string(project().join("docs").join(name)).unwrap();
        let document = read("failures.md") + &read("events.md");
        let mut known = BTreeSet::new();
        functions(project(), &mut known);
        let named = document.split('`').skip(1).step_by(2).filter_map(|text| Some(text.rsplit_once("::")?.1));
        let tests: BTreeSet<_> = named.filter(|name| name.matches('_').count() > 1).collect();
        assert!(tests.len() > 10, "{tests:?}");
        let missing: Vec<_> = tests.iter().filter(|name| !known.contains(**name)).collect();
        assert!(missing.is_empty(), "docs/failures.md or docs/events.md names tests that do not exist: {missing:?}");
    }

    #[test]
    fn every_test_that_a_document_promises_by_exists() {
        let document = std::fs::read_to_string(project().join("docs/reliability.md")).unwrap();
        let mut known = BTreeSet::new();
        functions(project(), &mut known);
        let named = named(&document);
        assert!(named.len() > 40, "{} tests are named", named.len());
        let missing: Vec<_> = named.iter().filter(|name| !known.contains(**name)).collect();
        assert!(missing.is_empty(), "docs/reliability.md names tests that do not exist: {missing:?}");
        for row in document.lines().filter(|line| line.starts_with("| ")) {
            let is_header = row.starts_with("| fault") || row.starts_with("| attempt");
            assert!(is_header || row.trim_end().ends_with("` |"), "a row without a test: {row}");
        }
    }
}
