//! What was predicted across, what was measured up, the same scale on both; on the diagonal they
//! agree.

use super::text::{Html, escape, html};
use super::widths;
use crate::format::number::percent;
use std::fmt::Write;

/// A run.
pub(super) struct Spot {
    pub x: f64,
    pub y: f64,
    pub title: String,
    /// To be set apart.
    pub odd: bool,
}

const SIZE: f64 = 340.0;
const LEFT: f64 = 52.0;
const END: f64 = 328.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 288.0;

/// A share's place on an axis from −reach to reach.
fn place(share: f64, reach: f64, from: f64, to: f64) -> f64 {
    let part = (share.clamp(-reach, reach) + reach) / (2.0 * reach);
    from + part * (to - from)
}

/// Changes as shares, predicted and measured.
pub(super) fn scatter(spots: &[Spot]) -> Html {
    // The scale is that of the predictions, which the measurements may leave; they are kept at the
    // edge.
    let reach =
        spots.iter().map(|s| s.x.abs().max(s.y.abs().min(1.5 * s.x.abs()))).fold(0.01, f64::max)
            * 1.06;
    let (across, up) = (|x: f64| place(x, reach, LEFT, END), |y: f64| place(y, reach, BOTTOM, TOP));
    let mut body = String::new();
    let _ = write!(
        body,
        "<path class=\"grid strong\" d=\"M{0:.1} {TOP}V{BOTTOM}M{LEFT} {1:.1}H{END}\"/>\
         <path class=\"grid agree\" d=\"M{LEFT} {BOTTOM}L{END} {TOP}\"/>",
        across(0.0),
        up(0.0)
    );
    for value in [-reach / 1.06, 0.0, reach / 1.06] {
        let label = percent(value);
        let _ = write!(
            body,
            "<text class=\"l\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>\
             <text class=\"l\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            across(value),
            BOTTOM + 17.0,
            LEFT - 7.0,
            up(value) + 4.0
        );
    }
    for s in spots {
        let class = if s.odd { "spot odd" } else { "spot" };
        let title =
            escape(&format!("{}: predicted {}, measured {}", s.title, percent(s.x), percent(s.y)));
        let _ = write!(
            body,
            "<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{:.1}\" \
             r=\"3.5\"><title>{title}</title></circle>",
            across(s.x),
            up(s.y)
        );
    }
    let px = widths::picture(SIZE as usize);
    html(format!(
        "<svg class=\"plot scatter {px}\" viewBox=\"0 0 {SIZE} {SIZE}\" \
         role=\"group\" \
         aria-label=\"measured over predicted change\">{body}\
         <text class=\"l\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">predicted change</text></svg>",
        (LEFT + END) / 2.0,
        SIZE - 12.0
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_picture_is_kept_at_its_edge() {
        assert_eq!(
            [-9.0, -1.0, 0.0, 1.0, 9.0].map(|x| place(x, 1.0, 10.0, 30.0)),
            [10.0, 10.0, 20.0, 30.0, 30.0]
        );
    }

    #[test]
    fn titles_are_text() {
        let spot = Spot { x: 0.2, y: -3.0, title: "<b>".into(), odd: true };
        let markup = scatter(&[spot]).to_string();
        assert!(markup.contains("&lt;b&gt;: predicted 20.0%, measured −300%"), "{markup}");
    }
}
