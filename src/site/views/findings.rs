//! What was found of a task, in sentences with their numbers: how far heads and MLPs, and features
//! alone, do the task; how many links hold; and what was not tested. No verdict is stronger than
//! what was measured.

use super::faithful::{beside, fresh, in_strata, largest, measure, share};
use crate::atlas::model::{Faithfulness, Interval, Task};
use crate::format::number::{count, counted};
use crate::stats::agreement::Doubt;
use serde::Serialize;
use std::collections::BTreeSet;

/// Verdicts by how the style sheet shows them.
const GOOD: &str = "beats";
const NEAR: &str = "near";
const BAD: &str = "beaten";

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    what: &'static str,
    /// Empty where there is nothing to judge.
    verdict: String,
    class: &'static str,
    text: String,
    /// The same in a sentence, for the front page.
    short: String,
}

/// The findings of a task in a model of so many heads and MLPs.
pub(super) fn findings(task: &Task, all: usize) -> Vec<Finding> {
    let found = [components(task, all), features(task), links(task), Some(untested(task))];
    found.into_iter().flatten().collect()
}

/// The same in plain text, without what was not tested.
pub(super) fn in_short(task: &Task, all: usize) -> String {
    let tested = [components(task, all), features(task)].into_iter().flatten();
    tested.map(|f| format!("{}: {}. ", f.what, f.verdict)).collect()
}

/// What the values stand on.
pub(super) fn measured_on(task: &Task) -> Option<String> {
    let n = task.faithfulness.iter().find_map(|f| f.metrics.get("prompts")?.value);
    let run = task.faithfulness.iter().any(|f| f.metrics.contains_key("m_circuit"));
    run.then(|| {
        let prompts = match (n, fresh(task)) {
            (Some(n), true) => {
                format!("{} on which no circuit was found", counted(n as usize, "held-out prompt"))
            }
            (Some(n), false) => counted(n as usize, "prompt"),
            (None, _) => "the prompts".into(),
        };
        format!(
            "Measured on {prompts}, everything else {}-ablated. In brackets: 95% confidence \
             intervals; in parentheses: the range of random draws.",
            task.ablation()
        )
    })
}

fn components(task: &Task, all: usize) -> Option<Finding> {
    let found = largest(task, "found", "component", "")?;
    let n = found.size as usize;
    let core = core(task, found);
    let judged = if n >= all { core } else { Some(found) };
    let (verdict, class) = match judged {
        None => ("nothing is left out".to_string(), NEAR),
        Some(f) => match f.metrics.get("faithfulness").and_then(|i| i.value) {
            None => ("cannot be told".into(), NEAR),
            Some(value) => {
                let low = below(f, "faithfulness", task.faithful);
                match beside(task, f).and_then(|r| r.metrics.get("faithfulness")?.high) {
                    Some(random) if random >= value => ("no better than random".into(), BAD),
                    _ => named(low),
                }
            }
        },
    };
    let whole = match n >= all {
        true => format!(
            "All {all} heads and MLPs of the model are in a circuit of some prompt; together they \
             leave nothing out."
        ),
        false => format!(
            "{n} of {all} are in a circuit of some prompt. {}",
            keeps(task, found, "Alone they keep")
        ),
    };
    let left = share(found, "completeness").filter(|_| n < all);
    let left = left.map(|left| format!(" Without them {left} is left.")).unwrap_or_default();
    let core_told = core.map(|f| {
        let lead = format!("The {} in at least {} of the circuits keep", f.size, frequency(f));
        format!(" {}", keeps(task, f, &lead))
    });
    let text = whole + &left + core_told.as_deref().unwrap_or_default();
    let short = match n >= all {
        true => format!("All {all} are in circuits.{}", core_told.unwrap_or_default()),
        false => keeps(task, found, &format!("{n} of {all} alone keep")),
    };
    Some(Finding { what: "Heads and MLPs", verdict, class, text, short })
}

/// The smallest circuit of heads and MLPs that keeps enough over all prompts and in each stratum;
/// of those smaller than the one of all prompts.
fn core<'t>(task: &'t Task, found: &Faithfulness) -> Option<&'t Faithfulness> {
    let own = |f: &&Faithfulness| {
        (f.circuit.as_str(), f.level.as_str()) == ("found", "component")
            && f.ablation == found.ablation
            && f.metrics.contains_key("m_circuit")
            && f.size < found.size
            && below(f, "faithfulness", task.faithful).is_some_and(|low| low.is_empty())
    };
    task.faithfulness.iter().filter(own).min_by_key(|f| f.size)
}

/// `90%` of `frequency >= 0.9`.
fn frequency(f: &Faithfulness) -> String {
    let least = f.variant.rsplit(' ').next().and_then(|x| x.parse::<f64>().ok());
    least.map_or_else(|| f.variant.clone(), |least| format!("{:.0}%", least * 100.0))
}

/// What a circuit keeps, with random ones of its size.
fn keeps(task: &Task, f: &Faithfulness, lead: &str) -> String {
    let Some(kept) = share(f, "faithfulness") else {
        return format!(
            "{lead} a share of {} that cannot be told: with everything ablated it is not \
             significantly smaller.",
            measure(&task.kind)
        );
    };
    let above = f.metrics.get("faithfulness").and_then(|i| i.low).is_some_and(|low| low > 1.0);
    let above = if above { ", more than the whole model: what was ablated opposes it" } else { "" };
    let random = beside(task, f).and_then(|r| r.metrics.get("faithfulness")).and_then(range);
    let random = random.map(|r| format!("; as many random ones {r}")).unwrap_or_default();
    format!("{lead} {kept} of {}{above}{random}.", measure(&task.kind))
}

/// Of random circuits: the mean and the draws' range.
fn range(i: &Interval) -> Option<String> {
    let ends = match (i.low, i.high) {
        (Some(low), Some(high)) if low < high => {
            format!(" ({:.0} to {:.0})", low * 100.0, high * 100.0)
        }
        _ => String::new(),
    };
    // No minus before a zero.
    Some(format!("{:.0}%{ends}", i.value? * 100.0).replace("-0%", "0%").replace('-', "−"))
        .map(|text| text.replace("(−0 ", "(0 ").replace("to −0)", "to 0)"))
}

/// The strata (or all prompts, as an empty name) in which a metric is below a bound; none where one
/// of them is not known.
fn below(f: &Faithfulness, metric: &str, bound: f64) -> Option<Vec<String>> {
    let on = format!("{metric} on ");
    let mut low = Vec::new();
    for (name, interval) in &f.metrics {
        let stratum = if name == metric { Some("") } else { name.strip_prefix(&on) };
        if let Some(stratum) = stratum.filter(|_| interval.value.is_none_or(|v| v < bound)) {
            low.push(stratum.to_string());
        }
    }
    f.metrics.contains_key(metric).then_some(low)
}

/// `faithful`, `not faithful`, or `not faithful in ABBA`.
fn named(low: Option<Vec<String>>) -> (String, &'static str) {
    match low {
        None => ("cannot be told".into(), NEAR),
        Some(low) if low.is_empty() => ("faithful".into(), GOOD),
        Some(low) if low.iter().any(String::is_empty) => ("not faithful".into(), BAD),
        Some(low) => (format!("not faithful in {}", low.join(" and ")), BAD),
    }
}

fn features(task: &Task) -> Option<Finding> {
    let found = largest(task, "found", "feature", "ablated")?;
    let kept = share(found, "faithfulness");
    let gains = below(found, "faithfulness", f64::MIN_POSITIVE).is_some_and(|low| low.is_empty());
    let (mut verdict, mut class) = match found.metrics.contains_key("of_all") {
        true if !gains => ("not faithful".to_string(), BAD),
        true => named(below(found, "of_all", task.faithful)),
        false => ("measured".into(), NEAR),
    };
    let others: Vec<Beside> = [random(task, found), null(task, found), neurons(task, found)]
        .into_iter()
        .flatten()
        .collect();
    if class == GOOD {
        for other in others.iter().filter(|other| other.as_good) {
            let but = if class == GOOD { ", but " } else { " and " };
            verdict = format!("{verdict}{but}{}", other.verdict);
            class = NEAR;
        }
    }
    let of_all = share(found, "of_all").map(|all| {
        let strata = in_strata(found, "of_all");
        let strata =
            if strata.is_empty() { String::new() } else { format!(" ({})", strata.join(", ")) };
        format!("{all} of what all features together keep{strata}, and ")
    });
    let all = task
        .faithfulness
        .iter()
        .find(|f| f.circuit == "all" && f.ablation == found.ablation && f.errors == found.errors);
    let all = all.and_then(|f| Some((f.size, share(f, "faithfulness")?))).map(|(n, kept)| {
        format!(
            " All {} features of the dictionaries keep {kept}; the rest is in their error terms.",
            count(n.into())
        )
    });
    let of = measure(&task.kind);
    let kept = kept.map_or_else(|| format!("an unknown share of {of}"), |k| format!("{k} of {of}"));
    let compared: String = others.iter().map(|other| format!(" {}.", other.text)).collect();
    let text = format!(
        "{} alone, without error terms, keep {}{kept}.{compared}{}",
        counted(found.size as usize, "feature"),
        of_all.unwrap_or_default(),
        all.unwrap_or_default()
    );
    let beside: String = others.iter().map(|other| format!("; {}", other.short)).collect();
    let short = format!(
        "{} without error terms keep {kept}{beside}.",
        counted(found.size as usize, "feature")
    );
    Some(Finding { what: "Features alone", verdict, class, text, short })
}

/// A baseline beside a circuit of features.
struct Beside {
    text: String,
    short: String,
    as_good: bool,
    /// What a verdict adds then.
    verdict: &'static str,
}

fn value(f: &Faithfulness) -> Option<f64> {
    f.metrics.get("faithfulness")?.value
}

fn random(task: &Task, found: &Faithfulness) -> Option<Beside> {
    let own = beside(task, found)?.metrics.get("faithfulness")?;
    Some(Beside {
        text: format!("As many random features keep {}", range(own)?),
        short: format!("random ones {}", range(own)?),
        as_good: own.high? >= value(found)?,
        verdict: "random features keep as much",
    })
}

/// The ranking of the task with its answers exchanged in half of the prompts. It is as good where
/// the intervals meet.
fn null(task: &Task, found: &Faithfulness) -> Option<Beside> {
    let same = |f: &&Faithfulness| {
        f.circuit == "null"
            && (&f.level, &f.ablation, &f.errors, f.size)
                == (&found.level, &found.ablation, &found.errors, found.size)
    };
    let own = task.faithfulness.iter().find(same)?;
    Some(Beside {
        text: format!(
            "The same search on the task with its answers exchanged (null) finds features that keep \
             {}",
            share(own, "faithfulness")?
        ),
        short: format!("the null’s {}", share(own, "faithfulness")?),
        as_good: own.metrics.get("faithfulness")?.high? >= found.metrics.get("faithfulness")?.low?,
        verdict: "not told apart from the null",
    })
}

/// As many of the model's own neurons, ranked in the same way.
fn neurons(task: &Task, found: &Faithfulness) -> Option<Beside> {
    let same = |f: &&Faithfulness| {
        f.level == "neuron"
            && f.ablation == found.ablation
            && f.variant != "by size"
            && f.size == found.size
    };
    let own = task.faithfulness.iter().find(same)?;
    let off = |kept: f64| (1.0 - kept).abs();
    Some(Beside {
        text: format!("As many neurons, ranked the same way, keep {}", share(own, "faithfulness")?),
        short: format!("as many neurons {}", share(own, "faithfulness")?),
        as_good: off(value(own)?) <= off(value(found)?),
        verdict: "as many neurons do as well",
    })
}

fn links(task: &Task) -> Option<Finding> {
    let all = task.links.len();
    if all == 0 {
        return None;
    }
    let count = |doubt| task.links.iter().filter(|l| l.doubt == Some(doubt)).count();
    let [steady, short, opposite] = [Doubt::Steady, Doubt::Short, Doubt::Opposite].map(count);
    let tested = all - steady;
    let held = tested - short - opposite;
    let (verdict, class) = match (held, tested) {
        (_, 0) => ("none could be tested".to_string(), NEAR),
        (held, tested) if held == tested => (format!("all {tested} tested hold"), GOOD),
        (held, tested) if 2 * held > tested => (format!("{held} of {tested} tested hold"), NEAR),
        _ => (format!("{held} of {tested} tested hold"), BAD),
    };
    let untested = match steady {
        0 => String::new(),
        n => format!("; {n} could not be tested"),
    };
    let steady = match steady {
        0 => String::new(),
        n => format!(
            " In the other {n} the intervention hardly changes the feature, which tests nothing."
        ),
    };
    let text = format!(
        "Of the {all} strongest links {tested} were tested by intervention: {held} change what \
         they enter in the predicted direction by at least a quarter of what was predicted, \
         {short} by less, {opposite} the other way.{steady}"
    );
    let short = format!(
        "Of the {all} strongest, {held} have at least a quarter of the predicted effect, {short} \
         less, {opposite} the opposite sign{untested}."
    );
    Some(Finding { what: "Links", verdict, class, text, short })
}

/// What a reader may take for measured and is not.
fn untested(task: &Task) -> Finding {
    let rows = || task.faithfulness.iter();
    let mut left: Vec<String> = Vec::new();
    let run = rows().any(|f| f.metrics.contains_key("m_circuit"));
    if !run {
        left.push("whether the circuit does the task: nothing was ablated".into());
    } else if !fresh(task) {
        left.push(
            "held-out prompts: circuits were measured on the prompts that they were found on, so \
             the values are optimistic"
                .into(),
        );
    }
    if run && !rows().any(|f| f.circuit == "random") {
        left.push("random circuits of the same size".into());
    }
    if run && !rows().any(|f| f.level == "feature" && f.metrics.contains_key("m_circuit")) {
        left.push("features alone".into());
    }
    let ablations: BTreeSet<&str> =
        rows().map(|f| f.ablation.as_str()).filter(|name| !name.is_empty()).collect();
    if ablations.len() == 1 {
        left.push(format!("ablations other than {}", task.ablation()));
    }
    left.push(match task.links.len() {
        0 => "single links".into(),
        n => format!("links beyond these {n}"),
    });
    let templates: BTreeSet<&str> = task.prompts.iter().map(|p| p.template.as_str()).collect();
    left.push(match templates.len() {
        1 => "sentences of another form than the task’s one template".into(),
        n => format!("sentences of other forms than the task’s {n} templates"),
    });
    let text = capital(&format!("{}.", left.join("; ")));
    Finding { what: "Not tested", verdict: String::new(), class: "", short: text.clone(), text }
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::atlas::fixture;

    fn interval(value: f64) -> Interval {
        Interval { value: Some(value), low: Some(value - 0.05), high: Some(value + 0.05) }
    }

    fn row(level: &str, circuit: &str, size: u32, kept: f64) -> Faithfulness {
        let mut f = fixture::atlas().tasks[0].faithfulness[0].clone();
        f.level = level.into();
        f.circuit = circuit.into();
        f.variant = match level {
            "component" => format!("frequency >= {}", if size > 9 { 0.0 } else { 0.9 }),
            _ => "chosen".into(),
        };
        f.errors = if level == "feature" { "ablated".into() } else { String::new() };
        f.ablation = "mean".into();
        f.size = size;
        f.metrics =
            ["faithfulness", "m_circuit", "of_all"].map(|m| (m.into(), interval(kept))).into();
        f
    }

    fn task(rows: &[Faithfulness]) -> Task {
        Task { faithfulness: rows.to_vec(), links: Vec::new(), ..fixture::atlas().tasks[0].clone() }
    }

    fn verdicts(task: &Task, all: usize) -> Vec<(&'static str, String)> {
        findings(task, all).into_iter().map(|f| (f.what, f.verdict)).collect()
    }

    #[test]
    fn a_circuit_of_everything_is_no_finding() {
        let whole =
            task(&[row("component", "found", 28, 1.0), row("component", "random", 28, 1.0)]);
        assert_eq!(verdicts(&whole, 28)[0], ("Heads and MLPs", "nothing is left out".into()));
        assert_eq!(verdicts(&whole, 144)[0].1, "no better than random");
        let core = [
            row("component", "found", 28, 1.0),
            row("component", "found", 6, 0.95),
            row("component", "random", 6, 0.1),
        ];
        let told = findings(&task(&core), 28);
        assert_eq!(told[0].verdict, "faithful");
        assert!(
            told[0].text.contains("The 6 in at least 90% of the circuits keep 95%"),
            "{told:?}"
        );
        assert!(told[0].text.contains("as many random ones 10% (5 to 15)"), "{told:?}");
    }

    #[test]
    fn a_verdict_is_no_stronger_than_its_baselines() {
        let of = |rows: &[Faithfulness]| verdicts(&task(rows), 28)[0].1.clone();
        let found = row("feature", "found", 80, 0.95);
        assert_eq!(of(std::slice::from_ref(&found)), "faithful");
        assert_eq!(of(&[row("feature", "found", 80, 0.5)]), "not faithful");
        let random = row("feature", "random", 80, 0.93);
        assert_eq!(of(&[found.clone(), random]), "faithful, but random features keep as much");
        let null = row("feature", "null", 80, 0.88);
        assert_eq!(of(&[found.clone(), null]), "faithful, but not told apart from the null");
        let neurons =
            Faithfulness { variant: "as many".into(), ..row("neuron", "neurons", 80, 0.99) };
        assert_eq!(of(&[found.clone(), neurons]), "faithful, but as many neurons do as well");
        let mut weak = found;
        weak.metrics.insert("of_all on ABBA".into(), interval(0.7));
        assert_eq!(of(&[weak]), "not faithful in ABBA");
    }

    #[test]
    fn what_was_not_run_is_said() {
        let none = findings(&task(&[]), 28);
        assert_eq!(none.len(), 1);
        assert!(none[0].text.starts_with("Whether the circuit does the task"), "{none:?}");
        let bare = findings(&task(&[row("component", "found", 9, 0.9)]), 28);
        let told = &bare.last().unwrap().text;
        for left in
            ["Held-out prompts", "random circuits", "features alone", "ablations other than"]
        {
            assert!(told.contains(left), "{left}: {told}");
        }
    }

    #[test]
    fn links_are_told_with_how_many_were_tested() {
        let atlas = fixture::atlas();
        let told = links(&atlas.tasks[0]).unwrap();
        assert_eq!(told.verdict, "17 of 19 tested hold");
        assert!(told.text.starts_with("Of the 20 strongest links 19 were tested"), "{told:?}");
    }

    #[test]
    fn ranges_have_no_negative_zero() {
        let of =
            |v, l, h| range(&Interval { value: Some(v), low: Some(l), high: Some(h) }).unwrap();
        assert_eq!(of(-0.001, -0.004, 0.002), "0% (0 to 0)");
        assert_eq!(of(0.33, -0.1, 0.74), "33% (−10 to 74)");
    }
}
