//! Explanations that no language model wrote: one sentence from the statistics for what makes a feature fire, one for what
//! it promotes (DESIGN.md 4.10). Knows words and shares, not files or models.

/// Tokens named in a sentence.
const NAMED: usize = 4;
/// A feature with this share of its activation at one token is a feature of that token.
const ALMOST_ALL: f64 = 0.8;

/// What is known of a feature.
pub struct Facts<'a> {
    /// Tokens by their share of the summed activation, largest first.
    pub mass: &'a [(String, f64)],
    /// Tokens just before its peaks in the top examples, by the share of examples, largest first.
    pub before: &'a [(String, f64)],
    /// Share of tokens at which it is active.
    pub density: f64,
    pub promoted: &'a [String],
    pub suppressed: &'a [String],
}

/// What makes it fire, and what it promotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentences {
    pub input_side: String,
    pub output_side: String,
}

/// A feature in two sentences.
pub fn feature(facts: &Facts) -> Sentences {
    Sentences { input_side: input_side(facts), output_side: output_side(facts.promoted, facts.suppressed) }
}

/// Several features together: `what` they are, and the tokens at the peaks of their joint examples.
pub fn together(what: &str, peaks: &[(String, f64)], promoted: &[String], suppressed: &[String]) -> Sentences {
    let at = match peaks {
        [] => "never active together in the corpus".to_string(),
        _ => format!("together strongest at {}", shares(peaks)),
    };
    Sentences { input_side: format!("{what}: {at}."), output_side: output_side(promoted, suppressed) }
}

fn input_side(facts: &Facts) -> String {
    let Some((first, share)) = facts.mass.first() else {
        return "Never active on this corpus.".into();
    };
    let often = format!("active at {} of tokens", percent(facts.density));
    if *share >= ALMOST_ALL {
        return format!(
            "Fires at {} ({} of its activation){}; {often}.",
            quoted(first),
            percent(*share),
            behind(facts)
        );
    }
    let named: f64 = facts.mass.iter().take(NAMED).map(|x| x.1).sum();
    if named < 0.25 {
        return format!("Fires at many different tokens, most at {}{}; {often}.", shares(facts.mass), behind(facts));
    }
    format!("Fires at {}{}; {often}.", shares(facts.mass), behind(facts))
}

/// ", mostly behind `X`", when the token before the peak hardly varies.
fn behind(facts: &Facts) -> String {
    match facts.before.first() {
        Some((token, share)) if *share >= 0.6 => format!(", mostly behind {}", quoted(token)),
        _ => String::new(),
    }
}

fn output_side(promoted: &[String], suppressed: &[String]) -> String {
    let list = |tokens: &[String]| tokens.iter().take(NAMED).map(|t| quoted(t)).collect::<Vec<_>>().join(", ");
    match (promoted, suppressed) {
        ([], _) => "Promotes nothing that is known.".into(),
        (up, []) => format!("Promotes {}.", list(up)),
        (up, down) => format!("Promotes {}; suppresses {}.", list(up), list(down)),
    }
}

fn shares(tokens: &[(String, f64)]) -> String {
    let one = |(token, share): &(String, f64)| format!("{} ({})", quoted(token), percent(*share));
    tokens.iter().take(NAMED).map(one).collect::<Vec<_>>().join(", ")
}

/// A token in quotation marks, its spaces kept and its line ends made visible.
fn quoted(token: &str) -> String {
    format!("“{}”", token.replace('\n', "↵"))
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        p if p >= 10.0 => format!("{p:.0} %"),
        p if p >= 0.1 => format!("{p:.1} %"),
        p if p > 0.0 => format!("{p:.2} %"),
        _ => "0 %".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pairs: &[(&str, f64)]) -> Vec<(String, f64)> {
        pairs.iter().map(|(word, share)| (word.to_string(), *share)).collect()
    }

    #[test]
    fn a_feature_of_one_token_is_said_to_be_one() {
        let (mass, before) = (words(&[(" Mary", 0.93), (" Ann", 0.07)]), words(&[(" to", 0.8)]));
        let (up, down) = ([" she".to_string()], [" he".to_string()]);
        let facts = Facts { mass: &mass, before: &before, density: 0.012, promoted: &up, suppressed: &down };
        let said = feature(&facts);
        let expected = "Fires at “ Mary” (93 % of its activation), mostly behind “ to”; active at 1.2 % of tokens.";
        assert_eq!(said.input_side, expected);
        assert_eq!(said.output_side, "Promotes “ she”; suppresses “ he”.");
    }

    #[test]
    fn a_silent_feature_is_said_to_be_silent() {
        let facts = Facts { mass: &[], before: &[], density: 0.0, promoted: &[], suppressed: &[] };
        assert_eq!(feature(&facts).input_side, "Never active on this corpus.");
    }
}
