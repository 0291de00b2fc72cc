//! Where things stand in a YAML text: the documents of a file and the line and column of any field. Pure.

use serde_saphyr::granit_parser::{Event, Parser, ScanError, Span};

/// A place in a text; lines and columns start at 1, columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A node and what is in it.
#[derive(Debug)]
pub(super) struct Node {
    position: Position,
    inner: Inner,
}

#[derive(Debug)]
enum Inner {
    /// A scalar or an alias.
    Leaf,
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Debug)]
struct Entry {
    key: String,
    position: Position,
    value: Node,
}

/// One document of a file.
#[derive(Debug)]
pub(super) struct Region {
    /// Its bytes in the file, from the start of a line.
    pub(super) bytes: std::ops::Range<usize>,
    /// Line of its first byte.
    pub(super) first_line: usize,
    /// Its content.
    pub(super) root: Node,
}

/// What keeps a text from being YAML.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) position: Position,
    pub(super) message: String,
}

/// The documents of a text up to its end or the first error. Empty documents are left out.
pub(super) fn documents(text: &str) -> (Vec<Region>, Option<SyntaxError>) {
    let mut parser = Parser::new_from_str(text);
    let mut regions = Vec::new();
    let result = loop {
        match next(&mut parser) {
            Ok(Some((Event::DocumentStart(..), span))) => match region(&mut parser, text, span) {
                Ok(region) => regions.extend(region),
                Err(error) => break Some(error),
            },
            Ok(Some(_)) => {}
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let error = result.map(|error| SyntaxError {
        position: Position { line: error.marker().line(), column: error.marker().col() + 1 },
        message: error.info().to_owned(),
    });
    (regions, error)
}

type Events<'a> = Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>;
type Item<'a> = (Event<'a>, Span);

/// The next event that is not a comment.
fn next<'a>(parser: &mut Events<'a>) -> Result<Option<Item<'a>>, ScanError> {
    loop {
        match parser.next_event().transpose()? {
            Some((Event::Comment(..), _)) => {}
            other => return Ok(other),
        }
    }
}

fn region<'a>(parser: &mut Events<'a>, text: &'a str, start: Span) -> Result<Option<Region>, ScanError> {
    let mut root = None;
    let mut end = text.len();
    while let Some((event, span)) = next(parser)? {
        if event == Event::DocumentEnd {
            end = span.start.byte_offset().unwrap_or(end);
            break;
        }
        root = Some(node(parser, event, span)?);
    }
    let first = start.start.byte_offset().unwrap_or(0).min(end);
    let first = text[..first].rfind('\n').map_or(0, |newline| newline + 1);
    // An empty document is an empty scalar.
    let filled = root.filter(|root| !matches!(root.inner, Inner::Leaf) || !content(&text[first..end]).is_empty());
    Ok(filled.map(|root| Region { bytes: first..end, first_line: text[..first].matches('\n').count() + 1, root }))
}

/// What is left of a document without its marker and comments, if it has no other content.
fn content(document: &str) -> &str {
    let rest = document.strip_prefix("---").unwrap_or(document);
    if rest.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) { "" } else { rest }
}

/// Reads the node that `event` begins. The parser limits the depth.
fn node<'a>(parser: &mut Events<'a>, event: Event<'a>, span: Span) -> Result<Node, ScanError> {
    let position = position(span);
    let inner = if matches!(event, Event::SequenceStart(..)) {
        let mut items = Vec::new();
        while let Some((event, span)) = next(parser)?.filter(|(event, _)| *event != Event::SequenceEnd) {
            items.push(node(parser, event, span)?);
        }
        Inner::Sequence(items)
    } else if matches!(event, Event::MappingStart(..)) {
        let mut entries = Vec::new();
        while let Some((event, span)) = next(parser)?.filter(|(event, _)| *event != Event::MappingEnd) {
            let key = event.scalar().map(|(text, _)| text.to_owned()).unwrap_or_default();
            let position = node(parser, event, span)?.position;
            let Some((event, span)) = next(parser)? else { break };
            entries.push(Entry { key, position, value: node(parser, event, span)? });
        }
        Inner::Mapping(entries)
    } else {
        // Scalars and aliases; the other events do not stand where a node does.
        Inner::Leaf
    };
    Ok(Node { position, inner })
}

fn position(span: Span) -> Position {
    Position { line: span.start.line(), column: span.start.col() + 1 }
}

impl Node {
    /// What stands in no text.
    pub(super) fn nowhere() -> Node {
        Node { position: Position { line: 0, column: 0 }, inner: Inner::Leaf }
    }

    /// Where the node begins.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    /// Where a field such as `spec.rules[0].labels[a.b/c]` stands: at its key, or at an item's start. A field that is
    /// not there is at the nearest one around it.
    pub(super) fn find(&self, path: &str) -> Position {
        let (mut node, mut found, mut rest) = (self, self.position, path);
        loop {
            rest = rest.trim_start_matches('.');
            let step = match &node.inner {
                Inner::Leaf => None,
                Inner::Sequence(items) => step_into_sequence(items, rest),
                Inner::Mapping(entries) => step_into_mapping(entries, rest),
            };
            let Some((position, value, left)) = step else { return found };
            (node, found, rest) = (value, position, left);
        }
    }
}

type Step<'a, 'p> = Option<(Position, &'a Node, &'p str)>;

fn step_into_sequence<'a, 'p>(items: &'a [Node], path: &'p str) -> Step<'a, 'p> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    let item = items.get(index.parse::<usize>().ok()?)?;
    Some((item.position, item, rest))
}

/// Keys may contain dots, written `[a.b]` or plainly, so the longest key that fits is taken.
fn step_into_mapping<'a, 'p>(entries: &'a [Entry], path: &'p str) -> Step<'a, 'p> {
    let fits = |entry: &'a Entry| {
        let bracketed =
            path.strip_prefix('[').and_then(|path| path.strip_prefix(entry.key.as_str())?.strip_prefix(']'));
        let rest = bracketed.or_else(|| {
            path.strip_prefix(entry.key.as_str()).filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })?;
        (!entry.key.is_empty()).then_some((entry.position, &entry.value, rest))
    };
    entries.iter().filter_map(fits).min_by_key(|(_, _, rest)| rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# a comment
apiVersion: v1
metadata: {name: a, labels: {a.b/c: d, a: e}}
spec:
  rules:
  - verbs: [get, list]   # another
    \"quoted\": 1
  -
    verbs: &v
      - watch
  text: |
    spec: no
---
# nothing
---
---
two: *v
...
%YAML 1.2
---
three: 3
";

    #[test]
    fn documents_are_told_apart() {
        let (regions, error) = documents(&TEXT.replace("*v", "3"));
        assert_eq!(error, None);
        let lines: Vec<usize> = regions.iter().map(|region| region.first_line).collect();
        assert_eq!(lines, [2, 16, 20]);
        assert_eq!(regions[2].root.find("three"), Position { line: 21, column: 1 });
        assert!(TEXT.replace("*v", "3")[regions[1].bytes.clone()].starts_with("---\ntwo: 3"));
    }

    #[test]
    fn fields_are_found() {
        let (regions, _) = documents(TEXT);
        let root = &regions[0].root;
        for (path, line, column) in [
            ("apiVersion", 2, 1),
            ("metadata.name", 3, 12),
            ("metadata.labels[a.b/c]", 3, 30),
            ("metadata.labels.a.b/c", 3, 30),
            ("metadata.labels.a", 3, 40),
            ("spec.rules[0].verbs[1]", 6, 18),
            ("spec.rules[0].quoted", 7, 5),
            ("spec.rules[1].verbs[0]", 10, 9),
            ("spec.rules[2].verbs", 5, 3),
            ("spec.text.spec", 11, 3),
            ("spec.none.deep", 4, 1),
            ("none", 2, 1),
            ("", 2, 1),
        ] {
            assert_eq!(root.find(path), Position { line, column }, "{path}");
        }
    }

    #[test]
    fn what_comes_before_an_error_is_kept() {
        let (regions, error) = documents("a: 1\n---\nb: [1\nc: }");
        assert_eq!(regions.len(), 1);
        assert_eq!(error.unwrap().position.line, 4);
        assert_eq!(documents("").0.len(), 0);
    }
}
