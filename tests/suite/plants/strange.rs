//! A few contexts that are like no other text: they neither have a healthy dictionary refused nor
//! hide what is wrong with another.

use super::*;

/// Text that is not like the demo's.
#[derive(Clone, Copy, Debug)]
enum Strange {
    /// A dozen words again and again.
    Repeated,
    /// One word.
    OneWord,
    /// The token that contexts begin with.
    Bos,
    Digits,
    /// Any tokens at all.
    Noise,
}

const LENGTH: u32 = 127;

impl Strange {
    /// The `n`th context of its kind.
    fn context(self, n: u32) -> Vec<u32> {
        let tokenizer = &World::parts_of_demo().2;
        let bos = tokenizer.bos();
        let rest: Vec<u32> = match self {
            Strange::Repeated => (0..LENGTH).map(|i| 10 + n + 37 * (i % 12)).collect(),
            Strange::OneWord => vec![400 + n; LENGTH as usize],
            Strange::Bos => vec![bos; LENGTH as usize],
            Strange::Digits => {
                let digits = (0..2 * LENGTH).map(|i| char::from(b'0' + ((i * i + n) % 10) as u8));
                tokenizer.encode(&digits.collect::<String>()).unwrap()
            }
            Strange::Noise => (0..LENGTH).map(|i| (i * 7919 + n * 104_729) % 2500).collect(),
        };
        rest.into_iter().take(LENGTH as usize - 1).fold(vec![bos], |mut all, id| {
            all.push(id);
            all
        })
    }

    /// So many contexts of the demo, of which some are of this kind: at these places.
    fn among(self, all: u32, places: &[usize]) -> World {
        let mut contexts = demo_contexts(2300 / all);
        contexts.truncate(all as usize);
        for (n, place) in places.iter().enumerate() {
            contexts[*place] = self.context(n as u32);
        }
        World::of_demo(&contexts)
    }
}

/// What is said of the demo's own dictionaries.
fn told(world: &World) -> String {
    match judge(&world.healthy) {
        Err(error) => report(&error),
        Ok(warnings) => warnings.concat().join("\n"),
    }
}

#[test]
fn a_few_strange_contexts_have_no_healthy_dictionary_refused() {
    let cases: &[(Strange, u32, &[usize])] = &[
        (Strange::Repeated, 23, &[0, 1, 2]),
        (Strange::Repeated, 23, &[4, 11, 22]),
        (Strange::Repeated, 23, &[0, 3, 8, 12, 17, 21]),
        (Strange::Repeated, 23, &[17, 18, 19, 20, 21, 22]),
        (Strange::Repeated, 115, &[0, 1, 2]),
        (Strange::Repeated, 115, &[10, 60, 111]),
        (Strange::OneWord, 23, &[1, 9, 15]),
        (Strange::Bos, 23, &[1, 9, 15]),
        (Strange::Digits, 23, &[1, 9, 15]),
        (Strange::Noise, 23, &[1, 9, 15]),
        (Strange::Noise, 23, &[0, 3, 8, 12, 17, 21]),
    ];
    let mut wrong = Vec::new();
    for (strange, all, places) in cases {
        let told = told(&strange.among(*all, places));
        if !told.is_empty() {
            wrong.push(format!("--- {strange:?}, {} of {all}: {told}", places.len()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first contexts, which are more than the tokens that readings are tried on, and others.
#[test]
fn a_few_strange_contexts_hide_nothing() {
    let first = Strange::Repeated.among(23, &[0, 1, 2]);
    assert_told(&first, PLANTS);
    assert_told(&first, OF_JUMPS);
    let named = ["W_dec × 0.5", "rows permuted", "centred both", "[K, H]", "heads 0, 1"];
    let some: Vec<_> = PLANTS.iter().filter(|(name, ..)| named.contains(name)).copied().collect();
    assert_eq!(some.len(), named.len());
    assert_told(&Strange::OneWord.among(23, &[1, 9, 15]), &some);
    assert_told(&Strange::Noise.among(23, &[4, 12, 21]), &some);
}
