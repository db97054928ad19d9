//! A share of a stage's work, for several processes that do it together.

use anyhow::{Result, bail};
use std::fmt;
use std::str::FromStr;

/// One of several shares of a stage's work, as people write it: `2/8` is the second of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    number: u32,
    of: u32,
}

impl Shard {
    /// Whether a part is in this share: every `of`-th is.
    pub(crate) fn has(self, part: u32) -> bool {
        part % self.of == self.number - 1
    }

    /// Which of the shares it is, from 1.
    pub(crate) fn number(self) -> u32 {
        self.number
    }

    /// How many shares there are.
    pub(crate) fn of(self) -> u32 {
        self.of
    }
}

impl FromStr for Shard {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Shard> {
        let numbers = text.split_once('/');
        let parsed =
            numbers.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Shard { number, of }),
            _ => bail!("not I/N with I from 1 to N: the first of eight is `1/8`, the last `8/8`"),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_in_one_shard() {
        for of in 1..=5 {
            let shards: Vec<Shard> =
                (1..=of).map(|number| format!("{number}/{of}").parse().unwrap()).collect();
            for part in 0..12 {
                assert_eq!(shards.iter().filter(|shard| shard.has(part)).count(), 1);
            }
        }
    }

    #[test]
    fn other_texts_are_no_shards() {
        for text in
            ["", "x", "1", "/", "1/", "/4", "0/4", "5/4", "0/0", "1/0", "-1/4", "1/4/2", "1.0/4"]
        {
            assert!(text.parse::<Shard>().is_err(), "{text:?}");
        }
    }
}
