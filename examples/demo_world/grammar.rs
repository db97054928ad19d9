//! The seeded story writer of the demo world.
//!
//! A story is one *shape*: a template with its own plot, in which every
//! sentence has several phrasings. The template language is tiny:
//!
//! - `[x|y|z]` picks one of the phrasings (they nest; `[x|]` is optional text);
//! - `{A}` is a person, `{A.he}` `{A.him}` `{A.his}` agree with that person;
//! - `{color}` is a word of a table, the same one wherever the story says
//!   `{color}` again, and `{color2}` is another word of the same table;
//! - `@ ` is "a" or "an", `~` a new line, `^` forces a capital letter.
//!
//! Sentence starts get their capital letter and stray spaces are removed at
//! the end, so that phrasings can be put together freely.

#[path = "grammar/everyday.rs"]
mod everyday;
#[path = "grammar/gifts.rs"]
mod gifts;
#[path = "grammar/history.rs"]
mod history;
#[path = "grammar/words.rs"]
mod words;

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
#[allow(unused_imports)] // what a caller needs of these depends on the caller
pub(crate) use words::{ACCENTED_NAMES, EVENTS, HELD_OUT_NAMES, NAMES, OBJECTS, PLACES};
use words::{Kind, Mood};

/// Where a story will be used. Held-out names never take part in an "indirect
/// object" sentence in `Train`; everything else is the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Split {
    Train,
    Atlas,
}

/// How often a story begins with an indirect-object sentence.
const GIFT_SHARE: f64 = 0.22;
/// How often a story begins with "The war lasted from 1735 to 1752."
const EVENT_SHARE: f64 = 0.10;
/// How often a story speaks of years in some other way.
const YEARS_SHARE: f64 = 0.18;
/// How often a two-person everyday story has an indirect-object sentence
/// somewhere inside; with the openers this makes about 40 % of all stories.
const INNER_GIFT_SHARE: f64 = 0.33;
/// How often a story has somebody with an accented name in it.
const ACCENTED_SHARE: f64 = 0.04;
/// In training, held-out names are missing from the indirect-object stories.
/// They come up this much more often in the others, so that all names are
/// about equally frequent in the end.
const HELD_OUT_BOOST: f64 = 0.25;

/// Writes one document.
pub(crate) fn story(rng: &mut ChaCha8Rng, split: Split) -> String {
    let roll: f64 = rng.random();
    let mut teller = Teller::new(rng, split);
    let text = if roll < GIFT_SHARE {
        teller.cast_pair(true);
        teller.set_gift_roles();
        let opener = teller.gift_opener();
        let opener = teller.led(GIFT_LEADS, &opener);
        let body = teller.pick(gifts::SHAPES);
        teller.tell(&format!("{opener} {body}"))
    } else if roll < GIFT_SHARE + EVENT_SHARE {
        teller.cast_pair(false);
        let body = teller.pick(history::AFTER_EVENT);
        let event = teller.led(EVENT_LEADS, EVENT_SENTENCE);
        teller.tell(&format!("{event}. {body}"))
    } else {
        let years = roll < GIFT_SHARE + EVENT_SHARE + YEARS_SHARE;
        let shapes = if years { history::SHAPES } else { everyday::SHAPES };
        let shape = teller.pick(shapes);
        teller.inner_gift = shape.contains("{gift}") && teller.rng.random_bool(INNER_GIFT_SHARE);
        let inner_gift = teller.inner_gift;
        teller.cast_pair(inner_gift);
        teller.tell(shape)
    };
    finish(&text)
}

/// A bare indirect-object sentence, cut before the last name, and that name:
/// ("When Mary and John went to the store, John gave a drink to", "Mary"). In a `twin` somebody
/// else gives, so that either may be the receiver.
///
/// # Panics
/// When `names` holds fewer than three different names.
pub(crate) fn indirect_object(
    rng: &mut ChaCha8Rng,
    names: &[&str],
    twin: bool,
) -> (String, String) {
    let mut people: Vec<&str> = Vec::new();
    for _ in 0..2 + usize::from(twin) {
        let others: Vec<&str> =
            names.iter().copied().filter(|name| !people.contains(name)).collect();
        people.push(others.choose(rng).expect("indirect_object needs three different names"));
    }
    let mut teller = Teller::new(rng, Split::Atlas);
    teller.people.push(('A', Person::named(people[0])));
    teller.people.push(('B', Person::named(people[1])));
    teller.set_gift_roles();
    if let Some(other) = people.get(2) {
        let giver = teller.people.iter_mut().find(|(role, _)| *role == 'S');
        *giver.expect("roles are set") = ('S', Person::named(other));
    }
    let (sentence, verb) = teller.pick(TEST_SENTENCES);
    teller.choose_object(sentence, verb);
    let sentence = teller.led(GIFT_LEADS, &sentence.replace("{verb}", verb));
    let start = finish(&teller.tell(&sentence));
    let answer = teller.person('R').name.to_string();
    (start, answer)
}

/// A bare greater-than sentence, cut after the second century, and the first
/// year's two last digits: ("The war lasted from 1735 to 17", 35). In a `twin` the first year is
/// `01`.
pub(crate) fn greater_than(rng: &mut ChaCha8Rng, twin: bool) -> (String, u32) {
    let mut teller = Teller::new(rng, Split::Atlas);
    let mut years = Years::draw(teller.rng);
    if twin {
        years.first = years.first / 100 * 100 + 1;
    }
    teller.years = Some(years);
    let sentence = teller.led(EVENT_LEADS, EVENT_SENTENCE);
    let mut start = finish(&teller.tell(&sentence));
    start.truncate(start.len() - 2);
    (start, years.first % 100)
}

/// The exact sentence that the greater-than circuit is studied on.
const EVENT_SENTENCE: &str = "The {event} lasted from {y1} to {y2}";

/// How often something stands before the sentence of a task: without it, the position of a token
/// would tell its role.
const LEAD_SHARE: f64 = 0.6;
/// What may stand before an indirect-object sentence: an adverbial, or a sentence, some of which
/// name a third person.
const GIFT_LEADS: &[&str] = &[
    "One day,",
    "[In the morning|In the evening],",
    "Last {season9},",
    "On {day9},",
    "In {month9},",
    "[Long ago|Not long ago],",
    "At noon on {day9},",
    "On @ {weather9} day in {month9},",
    "It was {weather9}.",
    "It was {day9}, and the sun was out.",
    "The {animal9} was asleep.",
    "[There was no {food9}|There was {food9} for everybody].",
    "{E} was [late|asleep|at home|ill].",
    "{E} and {F} were [at work|away|asleep].",
    "{E} had gone home with the {pet9}.",
    "\"[Good morning|Good evening],\" said {E}.",
    "Nobody knew where {E} was.",
];
/// What may stand before "the war lasted from 1735 to 1752".
const EVENT_LEADS: &[&str] = &[
    "[Long ago|In the old days],",
    "[In the north|In the south],",
    "[By the sea|Far from the sea],",
    "As every child knows,",
    "[People say|It is written] that",
    "{E} knew the years by heart.",
    "[It was a long time ago|It is all in the books].",
    "\"[Listen|Look here],\" said {E}.",
    "The {animal9} on the gate is very old.",
];

/// The sentences that the indirect-object circuit is studied on, up to the receiver, and the verb
/// of each. `{X}` and `{Y}` are the two people in the order in which they are named; `{S}`, the
/// giver, is one of them. In a story `{verb}` may be another one.
const TEST_SENTENCES: &[(&str, &str)] = &[
    ("When {X} and {Y} went to the {place}, {S} {verb} a {o} to", "gave"),
    ("After {X} and {Y} met at the {place}, {S} {verb} a {o} to", "handed"),
    ("Then {X} and {Y} walked to the {place}, and {S} {verb} a {o} to", "offered"),
    ("While {X} and {Y} were at the {place}, {S} {verb} a {o} to", "passed"),
    ("When {X} and {Y} had a long talk at the {place}, {S} {verb} a {o} to", "gave"),
    ("Then {X} and {Y} had lunch at the {place}, and {S} {verb} a {o} to", "brought"),
    ("Then {X} and {Y} found a {o} at the {place}, and {S} {verb} it to", "gave"),
    ("When {X} and {Y} bought a {o} at the {place}, {S} {verb} the {o} to", "handed"),
    ("There was a {o} at the {place}. When {X} and {Y} saw it, {S} {verb} it to", "gave"),
    ("The {place} was quiet when {X} and {Y} came in, and {S} {verb} a {o} to", "lent"),
    ("While {X} and {Y} were waiting at the {place}, {S} wanted to give a {o} to", "gave"),
    (NOTHING_GIVEN, "said"),
];
/// The one of them that no story goes on from.
const NOTHING_GIVEN: &str = "After {X} and {Y} had a long talk at the {place}, {S} said to";

/// Other ways to begin a story with an indirect-object sentence.
const OPENER_CLAUSES: &[&str] = &[
    "When {X} and {Y} [came|ran|got] to the {place}[| one day| in the morning| in the rain],",
    "While {X} and {Y} were [waiting|sitting] at the {place},",
    "One {day}, {X} and {Y} [went|walked|ran] to the {place}, and",
    "On @ {weather} day in {month}, {X} and {Y} met at the {place}, and",
    "Because {X} and {Y} had to wait at the {place} for [an hour|a long time],",
    "As soon as {X} and {Y} [came|got] to the {place},",
    "Before {X} and {Y} left the {place},",
    "{X} and {Y} were friends, and one day at the {place}",
    "{X} met {Y} at the {place}, and after [a while|some time|a short talk]",
    "{X} was waiting for {Y} at the {place}, and when the rain stopped,",
    "After {X} and {Y} had walked around the {place} for [an hour|half the day],",
    "When {X} and {Y} went to the {place}, it was {weather}, [so|and]",
    "While {X} and {Y} were sitting at the {place} and talking about {topic},",
    "Every {day} {X} and {Y} met at the {place}, and this time",
    "The {place} was [quiet|cold|full of people] when {X} and {Y} came in, [so|and]",
    "Last {season}, when {X} and {Y} worked at the {place},",
    "Then {X} and {Y} [ran|came back] to the {place}, and",
    "Because {X} and {Y} were both late for the {place},",
];

/// Indirect-object sentences for the middle of a story.
const INNER_CLAUSES: &[&str] = &[
    "[Later|The next day|That evening|A week later], when {X} and {Y} [went|came|walked] to the {place2},",
    "[Then|So|After that] {X} and {Y} [went|walked|ran] to the {place2}, and",
    "Because {X} and {Y} were [good friends|alone for a moment|friends again],",
    "When {X} and {Y} [had a long talk|met again|sat down] at the {place2},",
    "While {X} and {Y} were [sitting|waiting] at the {place2},",
    "After {X} and {Y} [had talked for an hour|met again at the {place2}|left the {place2}],",
    "On the way, {X} and {Y} [stopped|rested] at the {place2}, and",
    "Before {X} and {Y} [left the {place2}|said goodbye],",
    "Then {X} and {Y} had [lunch|tea|dinner] at the {place2}, [where|and]",
    "As soon as {X} and {Y} were alone,",
    "On {day2}, {X} met {Y} at the {place2}, and",
    "It was {day2} when {X} and {Y} met at the {place2}, and",
    "[When|While] {X} and {Y} were at the {place2}, [it began to rain, so|they talked about {topic}, and|the sun came out, and]",
];

/// What may come right after the receiver's name.
const TAILS: &[&str] = &[
    ".",
    ".",
    ".",
    ".",
    ".",
    ".",
    " as a [present|surprise|small gift].",
    " and smiled.",
    " and [said nothing|went red|laughed].",
    " because {R.he} looked sad.",
    " with a smile.",
    " without a word.",
    " to say thank you.",
    " and sat down.",
    ", who was very [happy|glad].",
];

#[derive(Clone, Copy)]
struct Person<'n> {
    name: &'n str,
    she: bool,
}

impl<'n> Person<'n> {
    /// A person from one of the name lists; unknown names take "she".
    fn named(name: &'n str) -> Self {
        let he = NAMES[..words::HE_COUNT].contains(&name)
            || ACCENTED_NAMES[..words::ACCENTED_HE_COUNT].contains(&name);
        Person { name, she: !he }
    }

    /// The form of the pronoun, or of a word that agrees, that a slot asks for.
    fn form(self, slot: &str) -> &'static str {
        let forms = match slot {
            "he" => ["he", "she"],
            "him" => ["him", "her"],
            "his" => ["his", "her"],
            "himself" => ["himself", "herself"],
            "boy" => ["boy", "girl"],
            "man" => ["man", "woman"],
            "king" => ["king", "queen"],
            _ => panic!("unknown form {slot:?} in a story template"),
        };
        forms[usize::from(self.she)]
    }
}

/// A span of years inside one century, as the greater-than sentences have it.
#[derive(Clone, Copy)]
struct Years {
    first: u32,
    last: u32,
}

impl Years {
    fn draw(rng: &mut ChaCha8Rng) -> Self {
        let century = rng.random_range(11..=19) * 100;
        let first = rng.random_range(2..=97);
        let last = rng.random_range(first + 1..=99);
        Years { first: century + first, last: century + last }
    }
}

/// Tells one story: remembers who and what is in it.
struct Teller<'r, 'n> {
    rng: &'r mut ChaCha8Rng,
    split: Split,
    /// Whether `{gift}` becomes an indirect-object sentence or nothing.
    inner_gift: bool,
    people: Vec<(char, Person<'n>)>,
    /// The words chosen so far, by slot.
    words: Vec<(String, String)>,
    years: Option<Years>,
    object: Option<(usize, Kind)>,
    event: Option<usize>,
}

impl<'r, 'n> Teller<'r, 'n> {
    fn new(rng: &'r mut ChaCha8Rng, split: Split) -> Self {
        Teller {
            rng,
            split,
            inner_gift: false,
            people: Vec::new(),
            words: Vec::new(),
            years: None,
            object: None,
            event: None,
        }
    }

    fn pick<T: Copy>(&mut self, table: &[T]) -> T {
        *table.choose(self.rng).expect("story tables are not empty")
    }

    /// Casts the two main people, `A` and `B`.
    fn cast_pair(&mut self, gift: bool) {
        let accented = !gift && self.rng.random_bool(ACCENTED_SHARE);
        for role in ['A', 'B'] {
            let person = if accented && role == 'A' {
                Person::named(self.pick(ACCENTED_NAMES))
            } else {
                self.new_person(gift)
            };
            self.people.push((role, person));
        }
        if self.rng.random_bool(0.5) {
            let (a, b) = (self.people[0].1, self.people[1].1);
            self.people[0].1 = b;
            self.people[1].1 = a;
        }
    }

    /// A person who is not in the story yet.
    fn new_person(&mut self, gift: bool) -> Person<'n> {
        let train = self.split == Split::Train;
        loop {
            let name = if train && !gift && self.rng.random_bool(HELD_OUT_BOOST) {
                self.pick(HELD_OUT_NAMES)
            } else {
                self.pick(NAMES)
            };
            let barred = train && gift && HELD_OUT_NAMES.contains(&name);
            if !barred && self.people.iter().all(|(_, other)| other.name != name) {
                return Person::named(name);
            }
        }
    }

    /// The person in a role; further roles are cast when they first come up.
    fn person(&mut self, role: char) -> Person<'n> {
        if let Some((_, person)) = self.people.iter().find(|(r, _)| *r == role) {
            return *person;
        }
        let person = match role {
            'K' | 'L' => loop {
                let index = self.rng.random_range(0..words::KIN.len());
                let name = words::KIN[index];
                if self.people.iter().all(|(_, other)| other.name != name) {
                    break Person { name, she: index < words::KIN.len() / 2 };
                }
            },
            'J' => Person { name: self.pick(words::JOBS), she: self.rng.random_bool(0.5) },
            'C' | 'D' | 'E' | 'F' => self.new_person(false),
            _ => panic!("nobody plays {role:?} in this story template"),
        };
        self.people.push((role, person));
        person
    }

    /// Puts `A` and `B` in an order (`X`, `Y`) and makes one the giver (`S`)
    /// and the other the receiver (`R`), so that all four cases are as likely.
    fn set_gift_roles(&mut self) {
        let (a, b) = (self.person('A'), self.person('B'));
        let (x, y) = if self.rng.random_bool(0.5) { (a, b) } else { (b, a) };
        let (s, r) = if self.rng.random_bool(0.5) { (x, y) } else { (y, x) };
        self.people.extend([('X', x), ('Y', y), ('S', s), ('R', r)]);
    }

    /// Chooses the object that is given; a kiss is only ever "gave", and never lies about.
    fn choose_object(&mut self, sentence: &str, verb: &str) {
        let lies_about = sentence.contains("{o} at");
        loop {
            let index = self.rng.random_range(0..OBJECTS.len());
            let kind = words::kind_of(index);
            let fits = match kind {
                Kind::Kiss => verb == "gave" && !lies_about,
                Kind::Food | Kind::Drink => verb != "lent" && verb != "sent",
                _ => true,
            };
            if fits {
                self.object = Some((index, kind));
                return;
            }
        }
    }

    /// The template of an indirect-object sentence that begins a story. Two of
    /// three are the exact test sentences, mostly with their own verb.
    fn gift_opener(&mut self) -> String {
        let (sentence, verb) = if self.rng.random_bool(0.65) {
            let (sentence, own) = loop {
                let drawn = self.pick(TEST_SENTENCES);
                if drawn.0 != NOTHING_GIVEN {
                    break drawn;
                }
            };
            let any = self.pick(&["gave", "handed", "offered", "passed", "brought", "lent"]);
            (sentence.to_string(), if self.rng.random_bool(0.6) { own } else { any })
        } else {
            let verbs = ["gave", "gave", "handed", "offered", "passed", "brought", "lent", "sent"];
            let clause = self.pick(OPENER_CLAUSES);
            (format!("{clause} {{S}} {{verb}} a {{o}} to"), self.pick(&verbs))
        };
        self.choose_object(&sentence, verb);
        let tail = self.gift_tail(verb);
        format!("{} {{R}}{tail}", sentence.replace("{verb}", verb))
    }

    /// A sentence with something before it, or as it is.
    fn led(&mut self, leads: &[&str], sentence: &str) -> String {
        if !self.rng.random_bool(LEAD_SHARE) {
            return sentence.to_string();
        }
        let lead = self.pick(leads);
        // A sentence that goes on after an adverbial begins small, but not with a name.
        let (first, rest) = sentence.split_at(1);
        let first =
            if lead.ends_with(['.', '"']) { first.to_string() } else { first.to_lowercase() };
        format!("{lead} {first}{rest}")
    }

    /// The template of an indirect-object sentence inside a story.
    fn inner_gift(&mut self) -> String {
        self.set_gift_roles();
        let clause = self.pick(INNER_CLAUSES);
        let verb = self.pick(&["gave", "gave", "handed", "offered", "passed", "brought", "lent"]);
        self.choose_object(clause, verb);
        let tail = self.gift_tail(verb);
        let thanks = self.pick(gifts::INNER_THANKS);
        format!("{clause} {{S}} {verb} a {{o}} to {{R}}{tail} {thanks}")
    }

    /// What comes right after the receiver; nobody lends a present.
    fn gift_tail(&mut self, verb: &str) -> &'static str {
        if verb == "lent" { "." } else { self.pick(TAILS) }
    }

    fn tell(&mut self, template: &str) -> String {
        let mut out = String::with_capacity(1024);
        self.expand(template, &mut out);
        out
    }

    /// Writes a template out, choosing phrasings and filling slots.
    fn expand(&mut self, template: &str, out: &mut String) {
        let mut rest = template;
        while let Some(at) = rest.find(['[', '{']) {
            out.push_str(&rest[..at]);
            if rest.as_bytes()[at] == b'[' {
                let (inside, after) = bracketed(&rest[at + 1..]);
                let options = phrasings(inside);
                let option = self.pick(&options);
                self.expand(option, out);
                rest = after;
            } else {
                let (slot, after) =
                    rest[at + 1..].split_once('}').expect("a story template lacks a '}'");
                self.fill(slot, out);
                rest = after;
            }
        }
        out.push_str(rest);
    }

    /// Writes what a slot stands for.
    fn fill(&mut self, slot: &str, out: &mut String) {
        let first = slot.chars().next().unwrap_or(' ');
        if first.is_ascii_uppercase() {
            let person = self.person(first);
            out.push_str(slot.get(2..).map_or(person.name, |form| person.form(form)));
            return;
        }
        match slot {
            "gift" => {
                if self.inner_gift {
                    let sentence = self.inner_gift();
                    self.expand(&sentence, out);
                }
            }
            "o" => out.push_str(OBJECTS[self.object.expect("a gift comes first").0]),
            "keep" | "later" => {
                let (_, kind) = self.object.expect("a gift comes first");
                let line = if slot == "keep" { gifts::keep(kind) } else { gifts::later(kind) };
                self.expand(line, out);
            }
            "times" => {
                let mood = self.event_mood();
                self.expand(history::times(mood), out);
            }
            "end" => {
                let mood = self.event_mood();
                self.expand(history::end(mood), out);
            }
            "event" => {
                let index = self.event_index();
                out.push_str(EVENTS[index]);
            }
            "y1" => out.push_str(&self.years().first.to_string()),
            "y2" => out.push_str(&self.years().last.to_string()),
            _ => {
                let word = self.word(slot);
                out.push_str(&word);
            }
        }
    }

    fn years(&mut self) -> Years {
        if self.years.is_none() {
            self.years = Some(Years::draw(self.rng));
        }
        self.years.expect("just drawn")
    }

    fn event_index(&mut self) -> usize {
        if self.event.is_none() {
            self.event = Some(self.rng.random_range(0..EVENTS.len()));
        }
        self.event.expect("just drawn")
    }

    fn event_mood(&mut self) -> Mood {
        words::mood_of(self.event_index())
    }

    /// The word of a slot: the one chosen before, or a new one of its table.
    fn word(&mut self, slot: &str) -> String {
        if let Some((_, word)) = self.words.iter().find(|(s, _)| s == slot) {
            return word.clone();
        }
        let word = self.number(slot).unwrap_or_else(|| self.table_word(slot));
        self.words.push((slot.to_string(), word.clone()));
        word
    }

    /// A word of the slot's table that the story does not use yet.
    fn table_word(&mut self, slot: &str) -> String {
        let name = slot.trim_end_matches(|c: char| c.is_ascii_digit());
        let (_, table) = words::TABLES
            .iter()
            .find(|(table, _)| *table == name)
            .unwrap_or_else(|| panic!("no word table for {{{slot}}}"));
        loop {
            let word = self.pick(table);
            if self.words.iter().all(|(_, used)| used != word) {
                return word.to_string();
            }
        }
    }

    /// Slots written in figures; some of them follow from others, so that
    /// sums, clock times and scores in the stories come out right.
    fn number(&mut self, slot: &str) -> Option<String> {
        let number = match slot {
            "n" | "m" | "low" => self.rng.random_range(2..=9),
            "sum" => self.figure("n") + self.figure("m"),
            "high" => self.figure("low") + self.rng.random_range(1..=3),
            "big" | "big2" => self.rng.random_range(11..=60),
            "time" | "time2" | "time3" => {
                let minutes = match slot {
                    "time" => 5 * self.rng.random_range(5 * 12..14 * 12),
                    "time2" => self.clock("time") + 5 * self.rng.random_range(2..20),
                    _ => self.clock("time2") + 5 * self.rng.random_range(2..20),
                };
                return Some(format!("{}:{:02}", minutes / 60, minutes % 60));
            }
            _ if slot.starts_with("day+") => {
                // Days of the week in order: so many days after "{day}".
                let steps: usize = slot[4..].parse().expect("a number of days");
                let day = self.word("day");
                let (_, days) = words::TABLES.iter().find(|(name, _)| *name == "day")?;
                let at = days.iter().position(|name| *name == day)?;
                return Some(days[(at + steps) % days.len()].to_string());
            }
            "cur" => return Some(if self.rng.random_bool(0.15) { "£" } else { "$" }.to_string()),
            _ => return None,
        };
        Some(number.to_string())
    }

    fn figure(&mut self, slot: &str) -> u32 {
        self.word(slot).parse().expect("the slot is a figure")
    }

    /// Minutes since midnight of a clock slot.
    fn clock(&mut self, slot: &str) -> u32 {
        let word = self.word(slot);
        let (hours, minutes) = word.split_once(':').expect("the slot is a clock time");
        let figure = |part: &str| part.parse::<u32>().expect("clock times are figures");
        60 * figure(hours) + figure(minutes)
    }
}

/// Splits at the ']' that closes a bracket opened just before `text`.
fn bracketed(text: &str) -> (&str, &str) {
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' if depth == 0 => return (&text[..at], &text[at + 1..]),
            b']' => depth -= 1,
            _ => {}
        }
    }
    panic!("a story template lacks a ']': {text}")
}

/// The phrasings between the outermost '|' of a bracket.
fn phrasings(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            b'|' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Turns expanded text into prose: one space between words, none before a
/// comma or a period, "a" or "an", new lines, capitals at sentence starts.
fn finish(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut capital = true;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\n' => {
                if !out.is_empty() && !out.ends_with([' ', '\n']) {
                    // ". " ends a sentence, and so does '." '; '?" ' may not.
                    capital |= out.ends_with(['.', '!', '?']) || out.ends_with(".\"");
                    out.push(' ');
                }
            }
            '~' => {
                trim_space(&mut out);
                out.push('\n');
                capital = true;
            }
            '^' => capital = true,
            '@' => {
                let next = chars.clone().find(|c| c.is_alphabetic()).unwrap_or(' ');
                out.push(if capital { 'A' } else { 'a' });
                capital = false;
                if "aeiouAEIOU".contains(next) {
                    out.push('n');
                }
            }
            '.' | ',' | '!' | '?' | ':' | ';' => {
                trim_space(&mut out);
                // Phrasings that end in '?' may stand before a comma.
                if c != ',' || !out.ends_with(['?', '!']) {
                    out.push(c);
                }
            }
            '"' => {
                let opens = out.is_empty() || out.ends_with([' ', '\n']);
                if opens {
                    // What is said begins with a capital letter, unless a
                    // sentence goes on after "said Tom,".
                    capital |= !out.ends_with(", ");
                } else if chars.peek() == Some(&' ') && out.ends_with(char::is_alphanumeric) {
                    out.push(',');
                }
                out.push(c);
            }
            _ => {
                if capital {
                    out.extend(c.to_uppercase());
                } else {
                    out.push(c);
                }
                capital = false;
            }
        }
    }
    trim_space(&mut out);
    out.replace("?\" said ", "?\" asked ")
}

fn trim_space(out: &mut String) {
    if out.ends_with(' ') {
        out.pop();
    }
}
