//! What circuits of different sizes do alone: a point a circuit with its interval, found ones
//! joined, beside random ones.

use super::text::{Html, escape, html};
use super::widths;
use crate::format::number::{fixed, with_interval};
use std::fmt::Write;

/// One circuit.
pub(super) struct Point {
    /// `found`, `random` or `published`.
    pub circuit: String,
    pub variant: String,
    pub size: u32,
    pub value: f64,
    pub low: Option<f64>,
    pub high: Option<f64>,
}

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 546.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 238.0;

/// What the style sheet calls a kind of circuit.
pub(super) fn class(circuit: &str) -> &'static str {
    match circuit {
        "found" => "found",
        "random" => "random",
        _ => "other",
    }
}

/// From values to places.
struct Axes {
    /// The largest size.
    size: f64,
    low: f64,
    high: f64,
}

impl Axes {
    /// 0 and 1 are always shown, and every value; an interval may leave the picture, or the widest
    /// would flatten all.
    fn of(points: &[Point]) -> Axes {
        let values = || points.iter().map(|p| p.value);
        let size = points.iter().map(|p| p.size).max().unwrap_or(1).max(1);
        let (low, high) = (values().fold(0.0, f64::min), values().fold(1.0, f64::max));
        let margin = 0.08 * (high - low);
        Axes { size: f64::from(size) * 1.04, low: low - margin, high: high + margin }
    }

    fn x(&self, size: f64) -> f64 {
        LEFT + size / self.size * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) - self.low) / (self.high - self.low);
        BOTTOM - share * (BOTTOM - TOP)
    }
}

/// A step of 1, 2 or 5 times a power of ten that cuts `span` into at most six.
fn step(span: f64) -> f64 {
    let power = 10f64.powf((span / 6.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| span / s <= 6.0).unwrap_or(span)
}

/// `metric` over the size of the circuit, counted in `unit`s.
pub(super) fn chart(metric: &str, unit: &str, points: &[Point]) -> Html {
    let axes = Axes::of(points);
    let mut body = String::new();
    push_grid(&mut body, &axes);
    push_curve(&mut body, &axes, points);
    points.iter().for_each(|p| push_point(&mut body, &axes, p));
    let title = escape(&format!("{metric} over circuit size"));
    let unit = escape(unit);
    let px = widths::picture(WIDTH as usize);
    html(format!(
        "<svg class=\"plot chart {px}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"group\" \
         aria-label=\"{title}\">{body}<text class=\"l\" x=\"{}\" y=\"{}\" \
         text-anchor=\"middle\">{unit}s in the circuit</text></svg>",
        (LEFT + RIGHT) / 2.0,
        HEIGHT - 6.0,
    ))
}

fn push_grid(body: &mut String, axes: &Axes) {
    let by = step(axes.high - axes.low);
    let first = (axes.low / by).ceil() as i64;
    for k in (first..).take_while(|&k| k as f64 * by <= axes.high) {
        let (value, y) = (k as f64 * by, axes.y(k as f64 * by));
        // 0 is the ablated model, 1 the whole one.
        let class = if k == 0 || (value - 1.0).abs() < 1e-9 { "grid strong" } else { "grid" };
        let decimals = if by < 0.1 { 2 } else { 1 };
        let _ = write!(
            body,
            "<path class=\"{class}\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
             <text class=\"l\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            fixed(value, decimals)
        );
    }
    let by = step(axes.size).max(1.0);
    for k in (0..).take_while(|&k| f64::from(k) * by <= axes.size) {
        let size = f64::from(k) * by;
        let _ = write!(
            body,
            "<text class=\"l\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            axes.x(size),
            BOTTOM + 18.0,
            fixed(size, 0)
        );
    }
}

fn push_curve(body: &mut String, axes: &Axes, points: &[Point]) {
    let mut found: Vec<&Point> = points.iter().filter(|p| p.circuit == "found").collect();
    found.sort_by(|a, b| a.size.cmp(&b.size).then(a.value.total_cmp(&b.value)));
    let places: Vec<String> = found
        .iter()
        .map(|p| format!("{:.1} {:.1}", axes.x(f64::from(p.size)), axes.y(p.value)))
        .collect();
    if places.len() > 1 {
        let _ = write!(body, "<path class=\"curve\" d=\"M{}\"/>", places.join("L"));
    }
}

fn push_point(body: &mut String, axes: &Axes, p: &Point) {
    let (x, y) = (axes.x(f64::from(p.size)), axes.y(p.value));
    let class = class(&p.circuit);
    let title = format!(
        "{}, {}, size {}: {}",
        p.circuit,
        p.variant,
        p.size,
        with_interval(Some(p.value), p.low, p.high)
    );
    let _ = write!(body, "<g class=\"{class}\" role=\"img\"><title>{}</title>", escape(&title));
    if let (Some(low), Some(high)) = (p.low, p.high) {
        let _ = write!(
            body,
            "<path class=\"reach\" d=\"M{x:.1} {:.1}V{:.1}\"/>",
            axes.y(low),
            axes.y(high)
        );
    }
    let mark = match class {
        "other" => format!("<path class=\"dot\" d=\"M{x:.1} {:.1}l6 6l-6 6l-6-6z\"/>", y - 6.0),
        _ => format!("<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
    };
    let _ = write!(body, "{mark}</g>");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(circuit: &str, size: u32, value: f64) -> Point {
        Point {
            circuit: circuit.into(),
            variant: "all".into(),
            size,
            value,
            low: Some(-9.0),
            high: Some(value),
        }
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([6.0, 1.16, 0.5, 13.0, 104.0].map(step), [1.0, 0.2, 0.1, 5.0, 20.0]);
    }

    #[test]
    fn everything_stays_in_the_picture() {
        let axes = Axes::of(&[point("found", 3, 0.5), point("random", 20, -2.0)]);
        for value in [-100.0, -2.0, 0.0, 1.0, 100.0] {
            assert!((TOP..=BOTTOM).contains(&axes.y(value)), "{value}");
        }
        assert!(axes.x(20.0) < RIGHT && axes.y(1.0) < axes.y(0.0));
    }

    #[test]
    fn found_circuits_are_joined_and_random_ones_are_not() {
        let markup =
            chart("faithfulness", "component", &[point("found", 9, 0.5), point("random", 9, 0.1)])
                .to_string();
        assert!(!markup.contains("curve"));
        let markup =
            chart("faithfulness", "component", &[point("found", 9, 0.5), point("found", 3, 0.1)])
                .to_string();
        assert_eq!(markup.matches("class=\"curve\"").count(), 1);
    }
}
