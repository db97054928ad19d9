//! A picture to draw on, and its PNG.

use crate::error::{Context, Result};
use crate::site::hashes;
use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use std::io::Write;
use tiny_skia::{
    Color, FillRule, LineCap, LineJoin, Paint, Path, PathBuilder, Pixmap, Rect, Stroke, Transform,
};

/// The size that social cards are shown at.
pub(super) const WIDTH: u32 = 1200;
pub(super) const HEIGHT: u32 = 630;

/// Red, green, blue.
pub(super) type Colour = [u8; 3];

/// A point, from the left and from the top.
type Point = [f32; 2];

/// The letters, as strokes: no font has to be there, nor be read.
const LETTERS: &str = include_str!("../../../templates/letters.txt");
/// From the top of a capital to the base line, in the letters' unit.
const CAPITAL: f32 = 21.0;
const BASE: f32 = 9.0;

/// What is to be drawn, one on top of the other.
#[derive(Debug)]
pub(super) struct Canvas {
    paper: Colour,
    marks: Vec<Mark>,
}

/// Something to draw.
#[derive(Debug)]
enum Mark {
    /// Left, top, right, bottom.
    Rectangle {
        at: [f32; 4],
        of: Colour,
        alpha: f32,
    },
    Dot {
        at: Point,
        radius: f32,
        of: Colour,
    },
    Curve {
        from: Point,
        to: Point,
        width: f32,
        of: Colour,
        alpha: f32,
    },
    Text {
        text: String,
        at: Point,
        height: f32,
        width: f32,
        of: Colour,
    },
}

impl Canvas {
    pub(super) fn new(paper: Colour) -> Canvas {
        Canvas { paper, marks: Vec::new() }
    }

    /// Left, top, right, bottom.
    pub(super) fn rectangle(&mut self, at: [f32; 4], of: Colour, alpha: f32) {
        self.marks.push(Mark::Rectangle { at, of, alpha });
    }

    pub(super) fn dot(&mut self, at: Point, radius: f32, of: Colour) {
        self.marks.push(Mark::Dot { at, radius, of });
    }

    /// From one point up to another.
    pub(super) fn curve(&mut self, from: Point, to: Point, width: f32, of: Colour, alpha: f32) {
        self.marks.push(Mark::Curve { from, to, width, of, alpha });
    }

    /// One line of text: where its base line begins, and its height. Characters without letters are
    /// left out; what is too long ends in dots.
    pub(super) fn text(&mut self, text: &str, at: Point, height: f32, width: f32, of: Colour) {
        self.marks.push(Mark::Text { text: text.into(), at, height, width, of });
    }

    /// A hash of what the picture is made from, this file too: as long as it is the same, so is the picture.
    pub(super) fn key(&self) -> String {
        let code = [include_str!("canvas.rs"), LETTERS, env!("CARGO_PKG_VERSION")];
        hashes::of(format!("{self:?}{code:?}").as_bytes())
    }

    /// The picture as a PNG of 8 bits a colour.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn png(&self) -> Result<Vec<u8>> {
        let [red, green, blue] = self.paper;
        let mut pixels = Pixmap::new(WIDTH, HEIGHT).context("there is no such picture")?;
        pixels.fill(Color::from_rgba8(red, green, blue, 255));
        let mut drawing = Drawing(pixels);
        self.marks.iter().for_each(|mark| drawing.draw(mark));
        drawing.png()
    }
}

struct Drawing(Pixmap);

impl Drawing {
    fn draw(&mut self, mark: &Mark) {
        match *mark {
            Mark::Rectangle { at: [left, top, right, bottom], of, alpha } => {
                if let Some(rect) = Rect::from_ltrb(left, top, right, bottom) {
                    self.0.fill_rect(rect, &paint(of, alpha), Transform::identity(), None);
                }
            }
            Mark::Dot { at: [x, y], radius, of } => {
                if let Some(circle) = PathBuilder::from_circle(x, y, radius) {
                    let (paint, rule) = (paint(of, 1.0), FillRule::Winding);
                    self.0.fill_path(&circle, &paint, rule, Transform::identity(), None);
                }
            }
            Mark::Curve { from, to, width, of, alpha } => self.curve(from, to, width, of, alpha),
            Mark::Text { ref text, at, height, width, of } => {
                self.text(text, at, height, width, of)
            }
        }
    }

    fn curve(&mut self, from: Point, to: Point, width: f32, of: Colour, alpha: f32) {
        let mut path = PathBuilder::new();
        let middle = (from[1] + to[1]) / 2.0;
        path.move_to(from[0], from[1]);
        path.cubic_to(from[0], middle, to[0], middle, to[0], to[1]);
        self.stroke(path.finish(), width, of, alpha);
    }

    fn text(&mut self, text: &str, at: Point, height: f32, width: f32, of: Colour) {
        let unit = height / CAPITAL;
        let room = (WIDTH as f32 - 2.0 * at[0]) / unit;
        let mut letters: Vec<Letter> = text.chars().filter_map(letter).collect();
        let long =
            |letters: &[Letter]| letters.iter().map(|l| l.right - l.left).sum::<f32>() > room;
        if long(&letters) {
            let dots: Vec<Letter> = "...".chars().filter_map(letter).collect();
            while !letters.is_empty() && long(&[letters.as_slice(), &dots].concat()) {
                letters.pop();
            }
            letters.extend(dots);
        }
        let mut path = PathBuilder::new();
        let mut x = at[0];
        for letter in letters {
            for stroke in &letter.strokes {
                for (i, point) in stroke.iter().enumerate() {
                    let to =
                        [x + (point[0] - letter.left) * unit, at[1] + (point[1] - BASE) * unit];
                    if i == 0 { path.move_to(to[0], to[1]) } else { path.line_to(to[0], to[1]) }
                }
            }
            x += (letter.right - letter.left) * unit;
        }
        self.stroke(path.finish(), width, of, 1.0);
    }

    fn stroke(&mut self, path: Option<Path>, width: f32, of: Colour, alpha: f32) {
        let Some(path) = path else { return };
        let stroke = Stroke {
            width,
            line_cap: LineCap::Round,
            line_join: LineJoin::Round,
            ..Stroke::default()
        };
        self.0.stroke_path(&path, &paint(of, alpha), &stroke, Transform::identity(), None);
    }

    fn png(&self) -> Result<Vec<u8>> {
        let mut rows = ZlibEncoder::new(Vec::new(), Compression::default());
        for row in self.0.pixels().chunks(WIDTH as usize) {
            // Each byte less the one on its left, which is most often 0.
            let mut line = vec![1];
            let mut before = [0; 3];
            for pixel in row {
                let now = [pixel.red(), pixel.green(), pixel.blue()];
                line.extend((0..3).map(|i| u8::wrapping_sub(now[i], before[i])));
                before = now;
            }
            rows.write_all(&line)?;
        }
        let mut header = Vec::from(WIDTH.to_be_bytes());
        header.extend(HEIGHT.to_be_bytes());
        // Eight bits, red green blue, and the only ways to compress, filter and order.
        header.extend([8, 2, 0, 0, 0]);
        let mut png = Vec::from(*b"\x89PNG\r\n\x1a\n");
        for (kind, data) in [(b"IHDR", header), (b"IDAT", rows.finish()?), (b"IEND", Vec::new())] {
            push_chunk(&mut png, kind, &data);
        }
        Ok(png)
    }
}

fn push_chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(data);
    png.extend((data.len() as u32).to_be_bytes());
    png.extend(kind);
    png.extend(data);
    png.extend(sum.sum().to_be_bytes());
}

fn paint(of: Colour, alpha: f32) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    let alpha = (alpha.clamp(0.0, 1.0) * 255.0).round() as u8;
    paint.set_color_rgba8(of[0], of[1], of[2], alpha);
    paint
}

#[derive(Clone)]
struct Letter {
    left: f32,
    right: f32,
    strokes: Vec<Vec<[f32; 2]>>,
}

/// The strokes of a character, if there is such a letter.
fn letter(c: char) -> Option<Letter> {
    let line = LETTERS.lines().find(|line| {
        let mut chars = line.chars();
        chars.next() == Some(c) && chars.next() == Some('\t')
    })?;
    let mut parts = line[c.len_utf8() + 1..].split('\t');
    let (left, right) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let point = |text: &str| {
        let (x, y) = text.split_once(',')?;
        Some([x.parse().ok()?, y.parse().ok()?])
    };
    let stroke = |text: &str| text.split(' ').filter_map(point).collect();
    Some(Letter { left, right, strokes: parts.next()?.split(';').map(stroke).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn every_letter_of_ascii_is_there() {
        for c in ' '..='~' {
            assert!(letter(c).is_some_and(|l| l.right > l.left), "{c:?}");
        }
        assert!(letter('é').is_none() && letter('\n').is_none());
    }

    #[test]
    fn a_png_has_what_was_drawn() {
        let mut canvas = Canvas::new([250, 250, 250]);
        canvas.rectangle([0.0, 0.0, 100.0, 10.0], [10, 20, 30], 1.0);
        canvas.text(&"a long title ".repeat(30), [60.0, 300.0], 60.0, 5.0, [0, 0, 0]);
        let png = canvas.png().unwrap();
        assert_eq!(png[16..24], [0, 0, 4, 176, 0, 0, 2, 118]);
        let from = png.windows(4).position(|bytes| bytes == b"IDAT").unwrap() + 4;
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&png[from..]).read_to_end(&mut rows).unwrap();
        let row = 3 * WIDTH as usize + 1;
        assert_eq!(rows.len(), row * HEIGHT as usize);
        assert_eq!(rows[..7], [1, 10, 20, 30, 0, 0, 0]);
        // At the right edge nothing was drawn: a long line ends before it.
        for line in rows.chunks(row) {
            let sum = |channel: usize| {
                line[1..].iter().skip(channel).step_by(3).fold(0u8, |a, b| a.wrapping_add(*b))
            };
            assert_eq!([sum(0), sum(1), sum(2)], [250, 250, 250]);
        }
    }
}
