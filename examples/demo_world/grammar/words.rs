//! The word lists of the demo world. They are kept small on purpose: a tiny
//! tokenizer can then give almost every word a token of its own.

/// Given names. The first [`HE_COUNT`] take "he", the others "she".
pub(crate) const NAMES: &[&str] = &[
    "Michael",
    "Matthew",
    "Daniel",
    "David",
    "James",
    "Robert",
    "John",
    "Joseph",
    "Andrew",
    "Ryan",
    "Jason",
    "William",
    "Anthony",
    "Adam",
    "Kevin",
    "Thomas",
    "Richard",
    "Mark",
    "Jacob",
    "Patrick",
    "Paul",
    "Samuel",
    "Tom",
    "Jack", // from here on: she
    "Jessica",
    "Amanda",
    "Sarah",
    "Elizabeth",
    "Megan",
    "Rachel",
    "Laura",
    "Emily",
    "Rebecca",
    "Erin",
    "Kelly",
    "Mary",
    "Lisa",
    "Katie",
    "Anna",
    "Alice",
    "Kate",
    "Lucy",
    "Emma",
    "Ruth",
    "Julia",
    "Helen",
    "Clara",
    "Jane",
];

/// How many of [`NAMES`], from the front, take "he".
pub(super) const HE_COUNT: usize = 24;

/// Names that never take part in an indirect-object sentence of the training
/// split, so that the atlas can ask whether the circuit works on new names.
pub(crate) const HELD_OUT_NAMES: &[&str] =
    &["Jason", "Kevin", "Jacob", "Samuel", "Amanda", "Megan", "Erin", "Helen"];

/// Names with letters outside ASCII, so that byte-level tokens get some use.
pub(crate) const ACCENTED_NAMES: &[&str] = &[
    "José", "Søren", "Łukasz", "Jürgen", // she
    "Zoë", "Chloé", "Renée", "Inés",
];

/// How many of [`ACCENTED_NAMES`], from the front, take "he".
pub(super) const ACCENTED_HE_COUNT: usize = 4;

/// Places that fit both "went to the ..." and "were at the ...".
pub(crate) const PLACES: &[&str] = &[
    "store",
    "garden",
    "restaurant",
    "school",
    "hospital",
    "office",
    "house",
    "station",
    "park",
    "library",
    "market",
    "museum",
    "beach",
    "farm",
    "bakery",
    "church",
    "castle",
    "river",
    "lake",
    "bridge",
    "theater",
    "zoo",
    "garage",
    "airport",
    "harbor",
    "hotel",
    "gym",
    "pool",
    "playground",
    "bank",
    "factory",
    "mill",
    "stable",
    "square",
    "tower",
    "shop",
    "circus",
    "fair",
    "palace",
    "temple",
    "barn",
    "well",
    "gate",
    "camp",
];

/// What may be done with an object, which decides the sentences that follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Fits in a pocket.
    Small,
    /// Is carried home.
    Thing,
    /// Is worn.
    Wear,
    Food,
    Drink,
    Read,
    Kiss,
}

/// Objects that fit "gave a ... to"; all begin with a consonant sound.
pub(crate) const OBJECTS: &[&str] = &[
    "kiss",
    "drink", // small
    "bone",
    "key",
    "coin",
    "ticket",
    "pen",
    "pencil",
    "button",
    "stone",
    "shell",
    "feather",
    "leaf",
    "spoon",
    "bell",
    "ribbon",
    "phone",
    "ruler", // thing
    "basketball",
    "computer",
    "lamp",
    "cup",
    "plate",
    "box",
    "bag",
    "flower",
    "camera",
    "radio",
    "picture",
    "guitar",
    "violin",
    "drum",
    "flute",
    "kite",
    "doll",
    "toy",
    "puzzle",
    "basket",
    "blanket",
    "pillow",
    "towel",
    "candle",
    "mirror",
    "brush",
    "hammer",
    "rope",
    "bucket",
    "ball",
    "bottle",
    "chair",
    "clock", // wear
    "ring",
    "necklace",
    "hat",
    "scarf",
    "watch",
    "coat",
    "jacket",
    "shirt",
    "belt",
    "mask", // food
    "snack",
    "sandwich",
    "cake",
    "cookie",
    "pie",
    "banana",
    "pear",
    "peach",
    "lemon",
    "carrot",
    "potato", // read
    "book",
    "letter",
    "map",
    "card",
    "notebook",
    "newspaper",
];

/// The kind of an object, by its position in [`OBJECTS`].
pub(super) fn kind_of(index: usize) -> Kind {
    match index {
        0 => Kind::Kiss,
        1 => Kind::Drink,
        2..18 => Kind::Small,
        18..51 => Kind::Thing,
        51..61 => Kind::Wear,
        61..72 => Kind::Food,
        _ => Kind::Read,
    }
}

/// How people lived through an event, which decides the sentences about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Hard,
    Good,
    Work,
}

/// Nouns that fit "The ... lasted from 1735 to 1752."
pub(crate) const EVENTS: &[&str] = &[
    "war",
    "siege",
    "strike",
    "drought",
    "plague",
    "famine",
    "flood",
    "quarrel",
    "revolt",
    "rebellion",
    "conflict",
    "crisis",
    "feud",
    "struggle",
    "fever",
    "storm",
    "blockade", // good
    "peace",
    "reign",
    "alliance",
    "truce",
    "boom",
    "friendship",
    "festival", // work
    "project",
    "search",
    "voyage",
    "journey",
    "trial",
    "campaign",
    "race",
    "hunt",
];

/// The mood of an event, by its position in [`EVENTS`].
pub(super) fn mood_of(index: usize) -> Mood {
    match index {
        0..17 => Mood::Hard,
        17..24 => Mood::Good,
        _ => Mood::Work,
    }
}

/// Relatives: the first half take "she", the second half "he".
pub(super) const KIN: &[&str] =
    &["mother", "grandmother", "aunt", "sister", "father", "grandfather", "uncle", "brother"];

pub(super) const JOBS: &[&str] = &[
    "baker", "farmer", "teacher", "doctor", "nurse", "driver", "painter", "sailor", "singer",
    "cook", "tailor", "gardener", "guard", "miller", "writer",
];

/// Words looked up by the name of a slot, as in "{color}" or "{color2}".
pub(super) const TABLES: &[(&str, &[&str])] = &[
    ("place", PLACES),
    ("event", EVENTS),
    (
        "thing",
        &[
            "key", "coin", "ticket", "pen", "shell", "feather", "bell", "ribbon", "ball", "box",
            "bag", "camera", "flute", "kite", "doll", "basket", "blanket", "mirror", "ring",
            "necklace", "hat", "scarf", "watch", "book", "letter", "map", "notebook", "umbrella",
        ],
    ),
    (
        "color",
        &[
            "red", "blue", "green", "yellow", "white", "black", "brown", "gray", "orange",
            "purple", "pink", "gold", "silver",
        ],
    ),
    ("fur", &["black", "white", "brown", "gray", "red", "yellow"]),
    // Places that were there in any century, for the stories with years.
    (
        "site",
        &[
            "garden", "house", "market", "farm", "church", "castle", "river", "lake", "bridge",
            "harbor", "mill", "stable", "square", "tower", "palace", "temple", "barn", "well",
            "gate",
        ],
    ),
    ("day", &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]),
    (
        "month",
        &[
            "January",
            "February",
            "March",
            "April",
            "May",
            "June",
            "July",
            "August",
            "September",
            "October",
            "November",
            "December",
        ],
    ),
    ("season", &["spring", "summer", "autumn", "winter"]),
    ("weather", &["sunny", "rainy", "windy", "cloudy", "snowy", "foggy", "cold", "warm", "hot"]),
    ("glad", &["happy", "glad", "proud", "cheerful"]),
    ("sad", &["sad", "angry", "worried", "tired", "afraid", "lonely"]),
    (
        "food",
        &[
            "bread", "soup", "cheese", "rice", "fish", "cake", "honey", "butter", "apples", "eggs",
            "pears", "beans", "carrots", "potatoes", "cookies", "lemons",
        ],
    ),
    ("veg", &["eggs", "pears", "beans", "carrots", "potatoes", "apples"]),
    (
        "animal",
        &[
            "dog", "cat", "horse", "cow", "goat", "sheep", "pig", "duck", "hen", "rabbit", "fox",
            "bear", "wolf", "mouse", "owl", "crow", "frog", "lion",
        ],
    ),
    ("pet", &["dog", "cat", "rabbit", "bird", "mouse", "kitten", "puppy", "parrot"]),
    ("inst", &["piano", "guitar", "violin", "drum", "flute", "trumpet"]),
    (
        "num",
        &[
            "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve",
            "twenty",
        ],
    ),
    (
        "topic",
        &[
            "the weather",
            "the old days",
            "school",
            "a good book",
            "the summer",
            "their families",
            "music",
            "the sea",
            "dogs",
            "the news",
            "a long trip",
            "nothing much",
        ],
    ),
    ("size", &["small", "little", "big", "old", "new", "heavy", "round", "strange", "fine"]),
    ("subject", &["math", "history", "music", "reading"]),
    ("sport", &["football", "basketball", "tennis", "chess"]),
];
