//! Explanations that no language model wrote: one sentence from the statistics for what makes a
//! feature active, one for what it promotes (`docs/definitions.md` §11). Everything in them is
//! counted, nothing is guessed.
//!
//! Knows words and shares, not files or models. Tokens stand in backticks, so that a reader can
//! tell their spaces.

use std::collections::BTreeMap;

/// The explainer's name where no language model wrote.
pub(crate) const STATISTICS: &str = "statistics";

/// What a summary knows of the corpus.
const EXPLAINED: &str = "in the half of the documents that explanations are made from";
/// Tokens named in a sentence.
const NAMED: usize = 4;
/// A feature with this share of its activation at one token is a feature of that token.
const ALMOST_ALL: f64 = 0.8;
/// What this share of examples has in common is said of all of them, with the count.
const MOST: f64 = 0.6;
/// The same for a kind of token, which says less than a token does.
const MOST_OF_A_KIND: f64 = 0.8;
/// Fewer examples than this have nothing in common that is worth saying.
const ENOUGH: usize = 5;

/// What is known of a feature.
pub struct Facts<'a> {
    /// Tokens by their share of the summed activation, largest first.
    pub mass: &'a [(String, f64)],
    /// Share of tokens at which it is active.
    pub density: f64,
    /// Tokens at the peaks of examples, of all strengths.
    pub peaks: &'a [String],
    /// The strongest examples.
    pub strongest: &'a [Around],
    /// The tokens that it promotes most, the most promoted one first.
    pub promoted: &'a [String],
    /// The tokens that it suppresses most, the most suppressed one first.
    pub suppressed: &'a [String],
}

/// The tokens around the peak of an example.
#[derive(Clone, Debug)]
pub struct Around {
    /// None at the start of a text.
    pub before: Option<String>,
    /// The token at the peak.
    pub peak: String,
    /// None where the window ends.
    pub after: Option<String>,
}

/// What makes it active, and what it promotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentences {
    /// What makes it active.
    pub input_side: String,
    /// What it promotes.
    pub output_side: String,
}

/// A feature in two sentences.
pub fn feature(facts: &Facts) -> Sentences {
    Sentences {
        input_side: input_side(facts),
        output_side: output_side(facts.promoted, facts.suppressed),
    }
}

/// Several features together, from the tokens at the peaks of their joint examples; `lead` begins
/// the sentence.
pub fn together(
    lead: &str,
    peaks: &[String],
    promoted: &[String],
    suppressed: &[String],
) -> Sentences {
    let input_side = match peaks {
        [] => format!("Never active together {EXPLAINED}."),
        _ => format!("{lead} at {}.", peaks_at(peaks)),
    };
    Sentences { input_side, output_side: output_side(promoted, suppressed) }
}

fn input_side(facts: &Facts) -> String {
    match facts.mass.first() {
        None => format!("Never active {EXPLAINED}."),
        Some((first, share)) => {
            let single = *share >= ALMOST_ALL;
            let what = if single {
                format!("{} ({} of its activation)", quoted(first), percent(*share))
            } else {
                many(facts)
            };
            format!(
                "Fires at {what}{}; active at {} of tokens.",
                strongest(facts.strongest, single),
                percent(facts.density)
            )
        }
    }
}

/// A feature of more than one token: the kind of its tokens if they are of one, and those that it
/// is most active at.
fn many(facts: &Facts) -> String {
    let named: f64 = facts.mass.iter().take(NAMED).map(|x| x.1).sum();
    let listed = shares(facts.mass);
    // Most of its peaks may be of a kind and most of its activation elsewhere: it is not a feature
    // of that kind then.
    let main = facts.mass.first().and_then(|(token, _)| Kind::of(token));
    match kind_of_most(facts.peaks).filter(|(kind, _)| main == Some(*kind)) {
        Some((kind, n)) => {
            format!("{} ({n} of {} examples), most at {listed}", kind.plural(), facts.peaks.len())
        }
        None if named < 0.25 => format!("many different tokens, most at {listed}"),
        None => listed,
    }
}

/// What the strongest examples have in common at the peak, before and after it.
fn strongest(examples: &[Around], single: bool) -> String {
    let all =
        |token: fn(&Around) -> Option<&String>| examples.iter().map(token).collect::<Vec<_>>();
    let places = [
        ("at", if single { vec![] } else { all(|a| Some(&a.peak)) }),
        ("after", all(|a| a.before.as_ref())),
        ("before", all(|a| a.after.as_ref())),
    ];
    let common =
        places.iter().filter_map(|(place, tokens)| Some(format!("{place} {}", in_common(tokens)?)));
    match common.collect::<Vec<_>>() {
        told if told.is_empty() => String::new(),
        told => format!("; its {} strongest examples peak {}", examples.len(), told.join(", ")),
    }
}

/// The token, or else the kind of token, that most examples have, with its count.
fn in_common(tokens: &[Option<&String>]) -> Option<String> {
    if tokens.len() < ENOUGH {
        return None;
    }
    let known: Vec<String> = tokens.iter().copied().flatten().cloned().collect();
    let (token, n) = tally(&known).into_iter().next()?;
    if n as f64 >= MOST * tokens.len() as f64 {
        return Some(format!("{} ({n})", quoted(&token)));
    }
    let (kind, n) =
        kind_of_most(&known).filter(|(_, n)| *n as f64 >= MOST_OF_A_KIND * tokens.len() as f64)?;
    Some(format!("{} ({n})", kind.singular()))
}

/// The peaks of joint examples: how many are at which token.
fn peaks_at(peaks: &[String]) -> String {
    let (tally, kind) = (tally(peaks), kind_of_most(peaks));
    let once = tally.first().is_some_and(|(_, n)| *n == 1);
    let count = |(i, (token, n)): (usize, &(String, usize))| match i {
        _ if once => quoted(token),
        0 if kind.is_none() => format!("{} ({n} of {} examples)", quoted(token), peaks.len()),
        _ => format!("{} ({n})", quoted(token)),
    };
    let list = tally.iter().take(NAMED).enumerate().map(count).collect::<Vec<_>>().join(", ");
    match kind {
        Some((kind, n)) => format!("{} ({n} of {} examples): {list}", kind.plural(), peaks.len()),
        None if once => format!("different tokens: {list}"),
        None => list,
    }
}

fn output_side(promoted: &[String], suppressed: &[String]) -> String {
    let list = |tokens: &[String]| {
        tokens.iter().take(NAMED).map(|t| quoted(t)).collect::<Vec<_>>().join(", ")
    };
    match (promoted, suppressed) {
        ([], _) => "No promoted tokens known.".into(),
        (up, []) => format!("Promotes {}.", list(up)),
        (up, down) => format!("Promotes {}; suppresses {}.", list(up), list(down)),
    }
}

fn shares(tokens: &[(String, f64)]) -> String {
    let one = |(token, share): &(String, f64)| format!("{} ({})", quoted(token), percent(*share));
    tokens.iter().take(NAMED).map(one).collect::<Vec<_>>().join(", ")
}

/// Texts by how often they come up, most often first.
fn tally(texts: &[String]) -> Vec<(String, usize)> {
    let mut times: BTreeMap<&String, usize> = BTreeMap::new();
    texts.iter().for_each(|text| *times.entry(text).or_default() += 1);
    let mut order: Vec<(String, usize)> =
        times.into_iter().map(|(text, n)| (text.clone(), n)).collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    order
}

/// A token in backticks. A backtick, a backslash and a line end within are escaped by a backslash,
/// so that the token can be read back.
pub fn quoted(token: &str) -> String {
    let escaped = token.replace('\\', "\\\\").replace('`', "\\`").replace('\n', "\\n");
    format!("`{escaped}`")
}

/// The token that [`quoted`] wrote; a text that is not in backticks is a token as it is.
pub(crate) fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else {
        return text.into();
    };
    let mut token = String::new();
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        token.push(match c {
            '\\' => rest.next().map_or('\\', |c| if c == 'n' { '\n' } else { c }),
            c => c,
        });
    }
    token
}

/// A share for a sentence.
pub fn percent(share: f64) -> String {
    match 100.0 * share {
        p if p >= 9.95 => format!("{p:.0}%"),
        p if p >= 0.095 => format!("{p:.1}%"),
        p if p > 0.0 => format!("{p:.2}%"),
        _ => "0%".into(),
    }
}

/// A kind of token that its characters alone decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Space,
    Number,
    Punctuation,
    Capitalised,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Space, Kind::Number, Kind::Punctuation, Kind::Capitalised];

    /// None of words in lower case, and of what is mixed.
    fn of(token: &str) -> Option<Kind> {
        let text = token.trim();
        let is = |kind: Kind, there: bool| there.then_some(kind);
        is(Kind::Space, text.is_empty())
            .or(is(Kind::Number, text.chars().all(|c| c.is_ascii_digit())))
            .or(is(Kind::Punctuation, !text.chars().any(char::is_alphanumeric)))
            .or(is(
                Kind::Capitalised,
                text.starts_with(char::is_uppercase) && text.chars().all(char::is_alphabetic),
            ))
    }

    fn singular(self) -> &'static str {
        match self {
            Kind::Space => "white space",
            Kind::Number => "a number",
            Kind::Punctuation => "punctuation",
            Kind::Capitalised => "a capitalised word",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Kind::Number => "numbers",
            Kind::Capitalised => "capitalised words",
            other => other.singular(),
        }
    }
}

/// The kind that most of the tokens are of, and how many.
fn kind_of_most(tokens: &[String]) -> Option<(Kind, usize)> {
    let count = |kind| tokens.iter().filter(|token| Kind::of(token) == Some(kind)).count();
    let enough = |n: usize| n >= ENOUGH && n as f64 >= MOST_OF_A_KIND * tokens.len() as f64;
    Kind::ALL.into_iter().map(|kind| (kind, count(kind))).find(|(_, n)| enough(*n))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
        pairs.iter().map(|(word, share)| (word.to_string(), *share)).collect()
    }

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| text.to_string()).collect()
    }

    fn around(before: &str, peak: &str, after: &str) -> Around {
        Around { before: Some(before.into()), peak: peak.into(), after: Some(after.into()) }
    }

    const NOTHING: Facts = Facts {
        mass: &[],
        density: 0.0,
        peaks: &[],
        strongest: &[],
        promoted: &[],
        suppressed: &[],
    };

    #[test]
    fn a_feature_of_one_token_is_said_to_be_one() {
        let mass = words(&[(" Mary", 0.93), (" Ann", 0.07)]);
        let strongest: Vec<Around> =
            (0..6).map(|i| around(" to", " Mary", ["a", "b", "c"][i % 3])).collect();
        let (promoted, suppressed) = (texts(&[" she"]), texts(&[" he"]));
        let facts = Facts {
            mass: &mass,
            density: 0.012,
            strongest: &strongest,
            promoted: &promoted,
            suppressed: &suppressed,
            ..NOTHING
        };
        let said = feature(&facts);
        let expected = "Fires at ` Mary` (93% of its activation); its 6 strongest examples peak \
            after ` to` (6); \
                        active at 1.2% of tokens.";
        assert_eq!(said.input_side, expected);
        assert_eq!(said.output_side, "Promotes ` she`; suppresses ` he`.");
    }

    #[test]
    fn a_kind_of_token_is_named_where_it_is_counted() {
        let mass = words(&[(" Ann", 0.2), (" Bob", 0.1)]);
        let mut peaks = texts(&[" Ann", " Bob", " Zoë", "Tom", " Ann", " the"]);
        let said = |peaks: &[String]| feature(&Facts { mass: &mass, peaks, ..NOTHING }).input_side;
        assert!(said(&peaks).starts_with(
            "Fires at capitalised words (5 of 6 examples), most at ` Ann` (20%), ` Bob`"
        ));
        peaks.extend(texts(&[" a", " to"]));
        assert!(
            said(&peaks).starts_with("Fires at ` Ann` (20%), ` Bob` (10%); active"),
            "5 of 8 are not most"
        );
    }

    #[test]
    fn what_follows_the_strongest_peaks_is_told_where_it_hardly_varies() {
        let strongest: Vec<Around> = [" Ann", " Bob", " Eve", " Zoë", " Tom", " a"]
            .map(|after| around("x", " to", after))
            .into();
        let mass = words(&[(" to", 0.3), (",", 0.2)]);
        let said = feature(&Facts { mass: &mass, strongest: &strongest, ..NOTHING }).input_side;
        let expected = "; its 6 strongest examples peak at ` to` (6), after `x` (6), before a \
            capitalised word (5);";
        assert!(said.contains(expected), "{said}");
    }

    #[test]
    fn features_together_are_told_by_their_peaks() {
        let said = |peaks: &[&str]| together("Strongest", &texts(peaks), &[], &[]).input_side;
        assert_eq!(said(&[" to", " to", ","]), "Strongest at ` to` (2 of 3 examples), `,` (1).");
        assert_eq!(said(&["a", "b"]), "Strongest at different tokens: `a`, `b`.");
        assert_eq!(
            said(&["1", "2", "2", "4", "5"]),
            "Strongest at numbers (5 of 5 examples): `2` (2), `1` (1), `4` (1), `5` (1)."
        );
        assert_eq!(
            said(&[]),
            "Never active together in the half of the documents that explanations are made from."
        );
    }

    #[test]
    fn kinds_are_decided_by_characters() {
        let kinds = [
            ("\n", Kind::Space),
            (" 17", Kind::Number),
            ("!\"", Kind::Punctuation),
            (" Zoë", Kind::Capitalised),
        ];
        for (token, kind) in kinds {
            assert_eq!(Kind::of(token), Some(kind), "{token:?}");
        }
        assert_eq!([" the", "7th", "<b", "McX!"].map(Kind::of), [None; 4]);
    }

    #[test]
    fn a_quoted_token_can_be_read_back() {
        for token in [" she", "\n", "\\n", "`", "a\\`b", ""] {
            assert_eq!(unquoted(&quoted(token)), token, "{token:?}");
        }
        assert_eq!(["she", "`", "\\n"].map(unquoted), ["she", "`", "\\n"]);
    }

    #[test]
    fn an_inactive_feature_is_said_to_be_inactive() {
        // It may be active in the other half.
        assert_eq!(
            feature(&NOTHING).input_side,
            "Never active in the half of the documents that explanations are made from."
        );
    }
}
