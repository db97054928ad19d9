//! Sets of rows, and orders of rows, as short texts that a script reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Rows in increasing order as text: a letter for how, then bytes in base 64. `d`: the distances
/// from one row to the next, the first from −1, less one. `r`: the same for runs of rows, each
/// followed by its length. `b`: a bit a row, the lowest first. The shortest of the three; empty for
/// no rows.
pub(super) fn encode(rows: &[u32]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let ways = [('d', distances(rows)), ('r', runs(rows)), ('b', bits(rows))];
    let shortest = ways.into_iter().min_by_key(|(_, bytes)| bytes.len());
    shortest.map(|(way, bytes)| format!("{way}{}", STANDARD.encode(bytes))).unwrap_or_default()
}

/// Rows in any order: three bytes a row, the lowest first, in base 64.
pub(super) fn order(rows: &[u32]) -> String {
    let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()[..3].to_vec()).collect();
    STANDARD.encode(bytes)
}

/// A number in seven bits a byte, the lowest first; the eighth bit says that more follow.
fn push(bytes: &mut Vec<u8>, mut number: u32) {
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn distances(rows: &[u32]) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), 0);
    for row in rows {
        push(&mut bytes, row - next);
        next = row + 1;
    }
    bytes
}

fn runs(rows: &[u32]) -> Vec<u8> {
    let (mut bytes, mut next) = (Vec::new(), 0);
    for run in rows.chunk_by(|a, b| a + 1 == *b) {
        push(&mut bytes, run[0] - next);
        push(&mut bytes, run.len() as u32);
        next = run[0] + run.len() as u32;
    }
    bytes
}

fn bits(rows: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; rows.last().map_or(0, |last| *last as usize / 8 + 1)];
    for row in rows {
        bytes[*row as usize / 8] |= 1 << (row % 8);
    }
    bytes
}

/// What the script does.
#[cfg(test)]
pub(super) fn decode(text: &str) -> Vec<u32> {
    if text.is_empty() {
        return Vec::new();
    }
    let bytes = STANDARD.decode(&text[1..]).unwrap();
    let bit = |row: &u32| bytes[*row as usize / 8] >> (row % 8) & 1 == 1;
    if text.starts_with('b') {
        return (0..bytes.len() as u32 * 8).filter(bit).collect();
    }
    let (mut numbers, mut number, mut shift) = (Vec::new(), 0, 0);
    for byte in bytes {
        number |= u32::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            numbers.push(number);
            (number, shift) = (0, 0);
        }
    }
    let (mut rows, mut next) = (Vec::new(), 0);
    for numbers in numbers.chunks(if text.starts_with('r') { 2 } else { 1 }) {
        let (first, length) = (next + numbers[0], numbers.get(1).copied().unwrap_or(1));
        rows.extend(first..first + length);
        next = first + length;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_back_and_short() {
        let every = |n: u32| (0..20_000).step_by(n as usize).collect::<Vec<u32>>();
        for (rows, way, longest) in [
            (vec![0], "d", 5),
            (vec![3, 19_999], "d", 9),
            ((500..9_000).collect(), "r", 9),
            (every(2), "b", 3400),
            (every(7), "b", 3400),
            (every(200), "d", 300),
            (every(1), "r", 9),
        ] {
            let text = encode(&rows);
            assert_eq!(decode(&text), rows);
            assert!(text.starts_with(way) && text.len() <= longest, "{}", text.len());
        }
        assert_eq!((encode(&[]), decode("")), (String::new(), Vec::new()));
        assert_eq!(order(&[1, 65_536, 258]), "AQAAAAABAgEA");
    }
}
