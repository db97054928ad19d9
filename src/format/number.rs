//! How numbers are written for people: few digits, a true minus sign, groups of three, a dash for
//! what is not there.

/// What stands for a number that is not there.
pub(crate) const ABSENT: &str = "—";
const MINUS: &str = "\u{2212}";
/// Narrow, and never broken across lines.
const GROUP: char = '\u{202f}';

/// `digits` significant digits; a power of ten below 0.001 and from a million on.
pub(crate) fn significant(x: impl Into<f64>, digits: usize) -> String {
    let x = x.into();
    if !x.is_finite() {
        return ABSENT.into();
    }
    if x == 0.0 {
        return "0".into();
    }
    // Rounded first, so that 9.999 is 10.0 and not 10.00.
    let scientific = format!("{:.*e}", digits - 1, x.abs());
    let exponent: i32 = scientific.split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let magnitude = match exponent {
        -3..=5 => {
            grouped(&format!("{:.*}", (digits as i32 - 1 - exponent).max(0) as usize, x.abs()))
        }
        _ => scientific.replace('-', MINUS),
    };
    signed(x, magnitude)
}

/// A fixed number of decimals, for columns.
pub(crate) fn fixed(x: impl Into<f64>, decimals: usize) -> String {
    let x = x.into();
    if !x.is_finite() {
        return ABSENT.into();
    }
    let magnitude = format!("{:.decimals$}", x.abs());
    let zero = magnitude.bytes().all(|b| b == b'0' || b == b'.');
    signed(if zero { 0.0 } else { x }, grouped(&magnitude))
}

/// A share as a percentage with about three digits: `42.3%`, `0.031%`, `100%`.
pub(crate) fn percent(share: impl Into<f64>) -> String {
    let x = share.into() * 100.0;
    match x.abs() {
        a if !a.is_finite() => ABSENT.into(),
        a if a == 0.0 || a >= 99.95 => format!("{}%", fixed(x, 0)),
        a if a >= 1.0 => format!("{}%", fixed(x, 1)),
        _ => format!("{}%", significant(x, 2)),
    }
}

/// A difference of shares, with its sign: `+42.3%`, `−0.031%`, `0%`.
pub(crate) fn difference(shares: f64) -> String {
    let plus = if shares > 0.0 { "+" } else { "" };
    plus.to_string() + &percent(shares)
}

/// How many prompts a model does right, `97 of 100`, and what that is of, `prompts right; 3 left
/// out`.
pub(crate) fn right_of(right: usize, used: usize, of: usize) -> [String; 2] {
    let left_out =
        if used < of { format!("; {} left out", count((of - used) as u64)) } else { String::new() };
    [format!("{} of {}", count(right as u64), count(of as u64)), format!("prompts right{left_out}")]
}

/// A count with its digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    grouped(&n.to_string())
}

/// A noun with its count: `1 page`, `2 pages`.
pub(crate) fn counted(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

/// A size in the unit that fits: `812 B`, `54.3 KB`, `2.85 MB`.
pub(crate) fn bytes(n: u64) -> String {
    let units = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    match units.into_iter().find(|(_, size)| n as f64 >= *size) {
        Some((unit, size)) => format!("{} {unit}", significant(n as f64 / size, 3)),
        None => format!("{n} B"),
    }
}

/// Seconds as a person would say them: `0.84 s`, `2 min 05 s`, `1 h 02 min`.
pub(crate) fn seconds(s: f64) -> String {
    let whole = s.round() as u64;
    match whole {
        _ if !s.is_finite() => ABSENT.into(),
        0..60 => format!("{} s", significant(s, 2)),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `0.83 [0.71, 0.94]`, never broken across lines, or a dash.
pub(crate) fn with_interval(value: Option<f64>, low: Option<f64>, high: Option<f64>) -> String {
    match (value, low, high) {
        (None, ..) => ABSENT.into(),
        (Some(value), Some(low), Some(high)) => {
            format!("{}\u{a0}[{},\u{a0}{}]", fixed(value, 2), fixed(low, 2), fixed(high, 2))
        }
        (Some(value), ..) => fixed(value, 2),
    }
}

/// A share with its interval in percent: `83% [71, 94]`; a dash for one that is not there.
pub(crate) fn percent_with_interval(
    value: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
) -> String {
    let whole = |x: f64| fixed(100.0 * x, 0);
    match (value, low, high) {
        (None, ..) => ABSENT.into(),
        (Some(value), Some(low), Some(high)) => {
            format!("{}%\u{a0}[{},\u{a0}{}]", whole(value), whole(low), whole(high))
        }
        (Some(value), ..) => format!("{}%", whole(value)),
    }
}

fn signed(x: f64, magnitude: String) -> String {
    if x < 0.0 { format!("{MINUS}{magnitude}") } else { magnitude }
}

/// Groups of three in the whole part.
fn grouped(plain: &str) -> String {
    let (whole, rest) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let mut text = String::with_capacity(plain.len() + 6);
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            text.push(GROUP);
        }
        text.push(digit);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases =
            [(0.0, "0"), (1.0, "1.00"), (9.999, "10.0"), (123.456, "123"), (-0.012345, "−0.0123")];
        for (x, text) in cases {
            assert_eq!(significant(x, 3), text, "{x}");
        }
        assert_eq!(significant(0.000123, 2), "1.2e−4");
        assert_eq!(significant(12345.6, 3), "12\u{202f}346");
        assert_eq!(significant(2.5e7, 2), "2.5e7");
        assert_eq!(significant(f64::NAN, 2), "—");
        assert_eq!((fixed(-0.001, 2), fixed(-1.5, 2)), ("0.00".into(), "−1.50".into()));
        assert_eq!(
            (count(999), count(1234), count(1234567)),
            ("999".into(), "1\u{202f}234".into(), "1\u{202f}234\u{202f}567".into())
        );
    }

    #[test]
    fn shares_and_times_read_naturally() {
        let shares =
            [(0.0, "0%"), (1.0, "100%"), (0.4231, "42.3%"), (0.00031, "0.031%"), (0.9999, "100%")];
        for (share, text) in shares {
            assert_eq!(percent(share), text);
        }
        assert_eq!(
            (seconds(0.844), seconds(125.0), seconds(3725.0)),
            ("0.84 s".into(), "2 min 05 s".into(), "1 h 02 min".into())
        );
        assert_eq!(with_interval(Some(0.834), Some(0.7), Some(0.9)), "0.83\u{a0}[0.70,\u{a0}0.90]");
        assert_eq!(
            percent_with_interval(Some(0.996), Some(-0.012), Some(1.094)),
            "100%\u{a0}[−1,\u{a0}109]"
        );
        assert_eq!(with_interval(None, Some(0.7), Some(0.9)), "—");
    }
}
