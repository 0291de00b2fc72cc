//! How results look: tables like kubectl's, JSON, YAML, ages. Pure, but for the writers that are given.

use std::io::Write;

use comfy_table::{Cell, Color, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::args::Format;
use crate::{Error, Streams, World};

/// What stands where there is nothing to show.
pub(crate) const NOTHING: &str = "-";

/// A table of text: the columns keep their width, the last may be of any length.
pub(crate) struct Rows {
    table: Table,
}

impl Rows {
    /// `colour` is for a terminal only.
    pub(crate) fn new<'a>(headers: impl IntoIterator<Item = &'a str>, colour: bool) -> Rows {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).force_no_tty().set_header(headers.into_iter().map(Cell::new));
        if colour {
            table.enforce_styling();
        }
        Rows { table }
    }

    pub(crate) fn add(&mut self, cells: impl IntoIterator<Item = Text>) {
        self.table.add_row(cells.into_iter().map(Cell::from));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(crate) fn write(mut self, out: &mut dyn Write) -> Result<(), Error> {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 3));
        }
        Ok(writeln!(out, "{}", self.table.trim_fmt())?)
    }
}

/// A cell's text and what its colour would say; the text says it too.
pub(crate) struct Text(String, Tone);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Text {
    pub(crate) fn toned(text: &str, tone: Tone) -> Text {
        Text(printable(text), tone)
    }
}

impl<T: AsRef<str>> From<T> for Text {
    fn from(text: T) -> Text {
        Text::toned(text.as_ref(), Tone::Plain)
    }
}

impl From<Text> for Cell {
    fn from(Text(text, tone): Text) -> Cell {
        let cell = Cell::new(if text.is_empty() { NOTHING } else { &text });
        match tone {
            Tone::Plain => cell,
            Tone::Good => cell.fg(Color::Green),
            Tone::Doubtful => cell.fg(Color::Yellow),
            Tone::Bad => cell.fg(Color::Red),
        }
    }
}

/// Texts come from clusters: none of them may steer the terminal or break a line.
pub(crate) fn printable(text: &str) -> String {
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `a=1,b=2`, as kubectl shows labels.
pub(crate) fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    map.into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Shows a result: as data, or for people by `table`.
pub(crate) fn show<T: Serialize>(
    format: Format,
    world: &World,
    streams: &mut Streams<'_>,
    data: &T,
    table: impl FnOnce(&World, &mut Streams<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    match format {
        Format::Table => table(world, streams),
        Format::Json => Ok(writeln!(streams.out, "{}", serde_json::to_string_pretty(data)?)?),
        Format::Yaml => Ok(streams.out.write_all(yaml(data)?.as_bytes())?),
    }
}

/// YAML that ends with a line's end. Through JSON, so that both formats say the same.
pub(crate) fn yaml(data: &impl Serialize) -> Result<String, Error> {
    // Folded lines would be hard to compare and to edit; literal ones are used where there are lines.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    let mut text = serde_saphyr::to_string_with_options(&serde_json::to_value(data)?, options)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// How long ago, as kubectl shows ages: `59s`, `2m5s`, `3h`, `2d4h`. Nothing for no time, and never below `0s`.
pub(crate) fn age(now: Timestamp, then: Option<Timestamp>) -> String {
    then.map(|then| seconds(now.as_second().saturating_sub(then.as_second()))).unwrap_or_default()
}

/// When it will be: `in 5m`, or `now` where the time has come.
pub(crate) fn until(now: Timestamp, then: Option<Timestamp>) -> String {
    then.map(|then| match then.as_second().saturating_sub(now.as_second()) {
        ..=0 => "now".to_owned(),
        left => format!("in {}", seconds(left)),
    })
    .unwrap_or_default()
}

/// The rounding of apimachinery's HumanDuration: coarser the longer it is.
pub(crate) fn seconds(total: i64) -> String {
    let total = total.max(0);
    let (minutes, hours, days) = (total / 60, total / 3600, total / 86_400);
    let two = |big: i64, unit: &str, small: i64, sub: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{sub}"),
    };
    match () {
        () if total < 120 => format!("{total}s"),
        () if minutes < 10 => two(minutes, "m", total % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_those_of_kubectl() {
        for (total, expected) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (325, "5m25s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (12_000, "3h20m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (190_800, "2d5h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (64_000_000, "2y10d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(seconds(total), expected, "{total}");
        }
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!((age(now, None), until(now, None)), (String::new(), String::new()));
        assert_eq!(until(now, Some(now)), "now");
        assert_eq!(until(now, Timestamp::from_second(300).ok()), "in 5m");
    }

    #[test]
    fn no_text_steers_the_terminal() {
        assert_eq!(printable(" a\x1b[31m\u{9b}b\nc\t"), "a [31m b c");
    }

    #[test]
    fn yaml_is_read_back_as_it_was_by_any_reader() {
        let data = serde_json::json!({
            "country": "no", "version": "1.10", "octal": "010", "time": "12:30:45", "empty": "", "null": "~", "number": 1.5,
            "long": "word ".repeat(50), "lines": "a\n  b\n", "tail": "a\n\n", "list": [], "map": {}, "hash": "#", "star": "*a"
        });
        let text = yaml(&data).unwrap();
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&text).unwrap(), data);
        assert!(text.contains("'no'") || text.contains("\"no\""), "{text}");
        assert!(text.contains("lines: |"), "{text}");
    }
}
