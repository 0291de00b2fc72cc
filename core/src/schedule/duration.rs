//! Go's `time.ParseDuration` for non-negative results, in whole seconds where it matters: the text after `@every`.
//!
//! kube's `Duration` reads the same format but panics on what users can write (`1h-5m`, a number that overflows).

use std::time::Duration;

/// Reads `1h30m`, `1.5h`, `90s`, `0`; `None` if Go would refuse the text. A negative duration is zero: `@every` turns
/// both into one second.
pub fn parse_go(text: &str) -> Option<Duration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds: u64 = 0;
    while !rest.is_empty() {
        let (part, after) = parse_part(rest)?;
        nanoseconds = nanoseconds.checked_add(part).filter(|sum| *sum <= 1 << 63)?;
        rest = after;
    }
    match negative {
        true => Some(Duration::ZERO),
        false => i64::try_from(nanoseconds).ok().map(|_| Duration::from_nanos(nanoseconds)),
    }
}

/// One number with its unit, in nanoseconds, and the text after it.
fn parse_part(text: &str) -> Option<(u64, &str)> {
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at(digits(text));
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let (unit, rest) = rest.split_at(rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len()));
    let unit = unit_nanoseconds(unit)?;
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let total = whole.checked_mul(unit)?.checked_add(fraction_nanoseconds(fraction, unit)?)?;
    (total <= 1 << 63).then_some((total, rest))
}

/// The fraction of a unit, rounded down. 18 digits are more than a nanosecond of an hour needs; Go drops the rest, too.
fn fraction_nanoseconds(digits: &str, unit: u64) -> Option<u64> {
    let digits = digits.get(..18).unwrap_or(digits);
    if digits.is_empty() {
        return Some(0);
    }
    let scale = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    u64::try_from(digits.parse::<u128>().ok()? * u128::from(unit) / scale).ok()
}

fn unit_nanoseconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("0", 0)]
    #[case("+0", 0)]
    #[case("-5m", 0)]
    #[case("90s", 90_000)]
    #[case("1h30m", 5_400_000)]
    #[case("1.5h", 5_400_000)]
    #[case(".5s", 500)]
    #[case("2.s", 2_000)]
    #[case("1500ms", 1_500)]
    #[case("1m1m", 120_000)]
    #[case("1000000us2000000\u{b5}s", 3_000)]
    #[case("0.3333333333333333333333h", 1_199_999)]
    fn accepted(#[case] text: &str, #[case] milliseconds: u128) {
        assert_eq!(parse_go(text).expect(text).as_millis(), milliseconds);
    }

    #[rstest]
    #[case("")]
    #[case("-")]
    #[case("5")]
    #[case("s")]
    #[case(".s")]
    #[case("1h-5m")]
    #[case("1d")]
    #[case(" 1h")]
    #[case("1h ")]
    #[case("1e3s")]
    #[case("2562048h")]
    #[case("99999999999999999999h")]
    fn refused(#[case] text: &str) {
        assert_eq!(parse_go(text), None);
    }
}
