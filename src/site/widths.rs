//! Lengths in pages. The pages' policy allows no style attributes, so each length is a class.

use minijinja::{Error, ErrorKind};
use std::fmt::Write;

/// Pictures up to this width in pixels; wider ones have that of this width.
const WIDEST: usize = 12_000;

/// Steps of a picture's width, narrower where pictures are small.
fn rounded(width: usize) -> usize {
    let step = if width < 1000 { 20 } else { 50 };
    width.div_ceil(step).max(1) * step
}

/// The class of a picture of this width in pixels; it may become a little wider than asked.
pub(super) fn picture(width: usize) -> String {
    format!("px{}", rounded(width).min(WIDEST))
}

/// The class of a bar of so many percent, for templates: `{{ row.width|width }}`.
///
/// # Errors
/// When the text is no number.
pub(super) fn class(percent: &str) -> Result<String, Error> {
    let value: f64 = percent.parse().map_err(|_| {
        Error::new(ErrorKind::InvalidOperation, format!("{percent:?} is no width in percent"))
    })?;
    Ok(format!("w{:.0}", value.clamp(0.0, 100.0)))
}

/// The style sheet's rules for all of these classes.
pub(super) fn rules() -> String {
    let mut out = String::from("\n/* Lengths of bars in percent, and widths of pictures */\n\n");
    for percent in 0..=100 {
        let _ = write!(out, "i.w{percent}{{width:{percent}%}}");
    }
    let mut width = rounded(1);
    while width <= WIDEST {
        let _ = write!(out, "svg.px{width}{{--w:{width}px}}");
        width = rounded(width + 1);
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_its_rule() {
        let rules = rules();
        for percent in ["0", "0.4", "37.6", "100", "250", "-3"] {
            assert!(rules.contains(&format!("i.{}{{", class(percent).unwrap())), "{percent}");
        }
        for width in [1, 20, 641, 999, 1000, 1001, 5432, 99_999] {
            let class = picture(width);
            assert!(rules.contains(&format!("svg.{class}{{--w:{}px}}", &class[2..])), "{width}");
        }
        assert!(class("wide").is_err());
    }
}
