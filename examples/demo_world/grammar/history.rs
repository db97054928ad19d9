//! Stories about years: what lasted from when to when.

use super::words::Mood;

/// What the time of an event was like.
pub(super) fn times(mood: Mood) -> &'static str {
    match mood {
        Mood::Hard => {
            "[There was little bread, and the markets were empty.|Many people left their houses.|People had little to eat, and the nights were long.|No ship came to the harbor.|The fields were empty, and the bells were silent.]"
        }
        Mood::Good => {
            "[The markets were full, and nobody was hungry.|There was music in every street.|Ships came from far away with tea and silver.|The gates were open by day and by night.|Everybody had work, and the children had shoes.]"
        }
        Mood::Work => {
            "[Every day there was something new to do.|Some people believed in it, and some only laughed.|It cost more gold than anybody had.|Half the town worked on it.|Many began it, but few saw the end of it.]"
        }
    }
}

/// How it ended.
pub(super) fn end(mood: Mood) -> &'static str {
    match mood {
        Mood::Hard => {
            "[When it was over, the bells rang all day.|When it ended, people danced in the square.|In {y2} it ended at last, and people came home.|At last, in {y2}, there was bread again.]"
        }
        Mood::Good => {
            "[When it was over, people were sad.|In {y2} it came to an end, and the music stopped.|After {y2} nothing was quite the same.|Old people talked about those years for a long time.]"
        }
        Mood::Work => {
            "[In {y2} it was over, and nobody knew what to do next.|When it ended, there was a great dinner in the square.|In {y2} it came to an end at last.|When it was over, people were tired and proud.]"
        }
    }
}

/// What follows "The {event} lasted from {y1} to {y2}."
pub(super) const AFTER_EVENT: &[&str] = &[
    // A town.
    r#"{times} [In a small town by the river|In a small town under the hill] there lived @ {J} [called|named] {A}. [Every morning {A} went to the {site}|{A} had @ {size} house and @ {animal}], and every evening {A.he} [lit a candle|wrote a few words in @ {color} book].
    "[How long will the {event} last?|When will it end?]" asked {A.his} {K}. "[Nobody knows|Not for ever]," said {A}. [{A} helped where {A.he} could|{A} gave what {A.he} had]. {end} {A} [was old by then|had white hair by then], but {A.he} [sang with the others|still had the {color} book]. [The town has not forgotten {A}|There is a stone for {A} by the {site2}]."#,
    // A lesson.
    r#"[The teacher wrote it on the wall|These were the words on the wall]. "[Who knows more about the {event}?|How many years is that?]" [asked the teacher|the teacher asked]. [The class was quiet|Nobody spoke]. Then {A} put up a hand. "[My {K} told me about it|I read it in a book]," said {A}. "{times}"
    "Very good, {A}," said the teacher. "And what came after {y2}?" {A} did not know, but {B} did. "They built [the bridge|the tower|a new church|a new market]," said {B}. [On the way home|After school] {A} and {B} talked about the {event}. "I am glad that I live now," said {A}."#,
    // A museum.
    r#"[You can read this|It says so] on a sign in the museum. {A} and {B} went there on @ {weather} {day}. In the first room there was @ {size} {thing} from {y1}. In the next room there was a picture of @ {animal}. "[DO NOT TOUCH|PLEASE DO NOT TOUCH]," said another sign.
    "[I would like to touch it|Why not?]" said {B}. "[Read the sign|No]," said {A}. {times} A {J} told them all about it. {end} [At {time} the museum closed|Then a bell rang], and {A} and {B} went out into the [light|street]. "[Next time we will see the rest|I liked the {thing} best]," said {B}."#,
    // An old book.
    r#"{A} found the years in an old book that had belonged to {A.his} {K}. [The book was {color}|It was @ {size} book], and somebody had written in it with @ {color2} pen. It said: "{times} [I am well, but my {L} is not|Today I saw @ {animal} in the {site}|We have {food}, but not much]."
    {A} read until {time}. [Who had written it?|Who was it?] On the last page there was a name: {C}. "[Who was {C}?|Do you know {C}?]" asked {A}. "{C} was [@ {J}|a friend of the family]," said {A.his} {K}. {end} [{A} closed the book|{A} put the book back] and [thought about {C}|looked out at the quiet street]."#,
    // A ruler.
    r#"In those years {C} was {C.king}. {C} had @ {color} coat, {num} horses and no friends. {times} The people came to the palace and said, "[Look at us|Talk to us], {C}!" But {C} [only counted the horses|slept until noon|looked at the sky].
    Then @ {J} came, who was not afraid. "[{C.king} {C}|Dear {C}]," said the {J}, "[go out and look|come with me for one day]." {C} went. {C.he} saw [the people at the {site}|the {site} and the people], and {C.his} face changed. {end} After that, {C} [had no horses and many friends|was a better {C.king}]."#,
    // The letter of the time.
    r#"This letter is from the year {y1}. ~Dear {A}, ~[I hope you are well.|How are you?] Here it is {weather}, and the {event} has begun. {times} My {K} works at the {site}, and I [help at home|look after the {animal}]. [Do you still play the {inst}?|Do you have enough {food}?] [Write soon|Come to us in {month} if you can]. ~Your {B} ~{A} got the letter [{num} months later|in {month2}]. {end} Then {A} and {B} met again, and [neither could speak|both laughed and cried]."#,
    // A clock.
    r#"[All that time|In all those years] the clock on the tower stood still. {times} People [looked up at the clock|looked at it every day] and said, "[It is still {time}|When it goes again, better days will come]."
    Then {A}, @ {J} from the next town, went up with a bag and @ {size} hammer. [{A} worked for {num} days|It took {num} days and {num2} nights]. "[It will never go|Come down]," called {B}. But {A} did not come down. {end} On that day the clock rang, once, twice, three times, and {B} [said sorry|was the first to dance]. "[A clock only needs a friend|It was only a little stone]," said {A}."#,
    // Facts.
    r#"{times} [Some say it began with @ {animal}|Nobody knows how it began|It began on @ {weather} {day} in {month}]. {end} [Ten years later|After {y2}] a new [bridge|tower|church|market|mill] was built, and [it is still there|people come from far away to see it]. [In {y1} the town had one {animal2}|There is also a song about it]. ["Never again," say the old people.|"Long ago and far away" is written over the gate.] [Today only a stone by the {site} speaks of it|A {J} named {C} wrote it all down]."#,
    "{times} {end}",
    "{times} [{A} wrote a book about it|There is a song about it], and [every child knows it|{B} knows it by heart].",
];

/// Stories in which years come up in other ways, or not at the very start.
pub(super) const SHAPES: &[&str] = &[
    // The king's list.
    r#"[Long ago|Once upon a time] there was a [land by the sea|small land] with [many|good and bad] rulers. {A} was {A.king} from {y1} to {y2}. {A} loved {food}, and [the cooks were {glad}|the people were not hungry]. After {A} came {B}. {B} loved [music|the {inst}], and [there was a song for every day|nobody could sleep].
    One day @ {J} said, "[Who was better, {A} or {B}?|Which one do you like more?]" The people [thought about it|talked for {num} days]. "[{A} gave us {food}, and {B} gave us songs|We need both]," they said. So they built [a tower|a bridge] with two names on it: {A} and {B}."#,
    // An old house.
    r#"There is an old house near the [church|bridge|mill|river|tower]. {C} and a big family lived there from {y1} to {y2}. [Then it was empty for a long time|After that nobody wanted it]. [The windows were dark|The door was {color} once], and the children said, "[A ghost lives there|Do not go in]."
    But {A} was not afraid. One {weather} evening {A} and {B} [opened the door|went in with a lamp]. They heard a noise. "[Who is there?|Is it the ghost?]" asked {B}. It was @ {size} {pet}! It sat on the steps and [looked at them|wanted {food}]. {gift} {A} took the {pet} home, and [the ghost was never seen again|now the house is just a house]."#,
    // A coin.
    r#"{A} was looking for [potatoes|carrots] in the garden when [something fell out of the ground|there was a small sound]. It was [a coin|an old coin]! {A} washed it and showed it at the museum. "[It is from the {event}|How strange]," said the guard there. "The {event} lasted from {y1} to {y2}. {times}"
    "[Is it worth much?|Can I keep it?]" asked {A}. "[It is worth {big} dollars|It is worth more than gold]," said the guard, "[but it is yours|and you found it]." {A} [thought about it for {num} days|did not want money]. Now the coin is in the museum, and the sign says: FOUND BY {A}. [{A} goes to see it every {day}|{A}'s {K} is very proud]."#,
    // A quiz.
    r#"[On {day} there was a quiz at school|The quiz began at {time}]. {A} and {B} sat in the first row. "First question," said the teacher. "When was the {event}?" "From {y1} to {y2}," said {A}. "Right! Second question. [How many legs do {num} horses have?|Which is bigger, {n} or {big}?]" {B} [knew it|counted on both hands]. "Right!"
    [The last question was hard|Then came the last question]. "[What has a face but no eyes?|What has hands but no arms?]" {A} looked at {B}, and {B} looked at [the wall|the door]. "A clock!" said {B}. [They won|The class was loud]. {gift} "[I only looked at the wall|It was over the door]," said {B}."#,
    // The bridge.
    r#"The people of the town built the bridge from {y1} to {y2}. [It was slow work|It took a long time]. {A} carried the stones, {B} cut the wood, and [an old horse pulled the wood up the hill|the children brought water]. [In winter they rested, and in summer they worked until it was dark.|Every {day} they ate {food}.|Many people laughed at them.]
    [Some said it would fall|"It will fall," said the {J}]. On the first day nobody wanted to go over it. "[I will go|I built it]," said {A}, "[so I am not afraid|so I will go first]." {A} went over it, step by step, and [the bridge stood|nothing fell]. Then {B} went, then the {J}, then everybody. [The bridge is still there|Today {num} buses go over it every hour]."#,
    // A grandparent's life.
    r#"{A}'s {K} worked at the {site} from {y1} to {y2}. [{K.he} got up at {time} every day|{K.he} knew everybody there]. "[What was it like?|Was it hard?]" asked {A}. "[It was loud and hot|It was hard, but I liked it]," said {A.his} {K}. "[On {day} we had {food}|We sang all day]. And I had a good friend there, called {C}."
    ["Where is {C} now?" "I do not know."|"Do you still see {C}?" "No, not for years."] So {A} [looked for the name|wrote {num} letters]. One {day2} in {month} there was a knock at the door. "[Hello, it is me|It is me, {C}]," said a voice. {A}'s {K} [laughed and cried|had to sit down], and {K.he} and {C} talked until it was dark."#,
    // A ship.
    r#"The ship was called the {color} {animal}. It sailed from {y1} to {y2}, [and no storm could stop it|and it saw every sea]. {A} was the cook, and {B} was the youngest sailor. [Every day there was {food}|At night they ate {food} or {food2}]. [Every night {B} played the {inst}|At night they looked at the stars].
    "[What is behind the sea?|Where does the sea end?]" asked {B}. "[More sea|Home]," said {A}. In {month} they saw land. [There were green hills and white houses|@ {color2} light was on the hill]. "Home!" called {B}. {gift} [The ship rests in the harbor now|Now children play on the old ship]."#,
    // An argument about dates.
    r#""The {event} lasted from {y1} to {y2}," said {A}. "[No|I do not think so]," said {B}, "[it was longer|it ended before that]." They [argued at breakfast|argued all the way to school], they argued at lunch, and they argued [on the bus|in the rain].
    "[Let us ask my {K}|We can look in a book]," said {A} at last. So they [went to the library|did], and there it was: {y1} to {y2}. {B} [was quiet for a moment|read it twice]. "[You were right, {A}|Well]," said {B}, "[I was wrong|you win]." {gift} Then {A} read, "{times}" "[I am glad it is over|That is enough]," said {B}."#,
    // A tree.
    r#"[There is an old tree by the {site}|By the {site} stands a very old tree]. It was small when the {event} began, which lasted from {y1} to {y2}. {times} But the tree [did not care|only grew].
    {A.king} {A} slept under it once. @ {J} [cried under it|kissed under it], and somebody cut a name into it: {B}. [It has seen snow and sun|@ {animal} and @ {animal2} have slept there]. [Last {season}|In {month}] a man came with a saw. "[Not this one|Leave it]," said the children, and they [stood around the tree|held hands around it]. The man looked at the name {B}. "[That is my name|I am called {B} too]," he said, and he went home."#,
    // A song.
    r#"[The old people sing|There is a song about it]: ~"Oh the {event} was long, oh the {event} was long, ~and we sat by the fire and we sang this song." ~The {event} was from {y1} to {y2}. {times} {A} [sang it to|played it for] the children, and the children sang it on the street. "Oh the {event} was long," [they sang|sang {B}] [at the {site}|on the way to school].
    {end} But the song did not stop. [{B} plays it on the {inst}|You can still hear it at the {site2}], and [if you stand very still|on {weather} days] you can hear it: "Oh the {event} was long, oh the {event} was long.""#,
    // A school play.
    r#"The children of the school [played the {event}|made a play about the {event}]. {A} was the {A.king}, and {B} was @ {J}. "[My people|Friends]," said {A}, "[the {event} has begun|the time has come]!" [Then {A} forgot the words|Then there was a long silence]. {B} [looked at the paper|had an idea]. "From {y1} to {y2} it will last," said {B}, "[so sit down and eat|and then we go home]."
    [Everybody laughed|The parents laughed]. {A} sat down on a box, and the box [broke|fell over]. Now {A} laughed too. {gift} "[It was the best part|You saved the play]," said {A} to {B} after it. {times} "[It was not like that|But nobody laughed then]," said the old {K} of {B}, "[but I liked it|yours was better].""#,
    // Two towns and a wall.
    r#"There were once two towns with a wall between them. The wall stood from {y1} to {y2}. {A} lived on one side, and {B} lived on the other. They [had never met|could not see each other], but every {day} {A} played the {inst}, and every {day} {B} [sang|listened]. "[Who are you?|What is your name?]" {A} called over the wall. "{B}! [And you?|Who are you?]" "{A}!"
    [They talked about {topic}|They told each other everything]. [Years went by|{A} got old, and so did {B}]. In {y2} the wall [came down|fell]. There was a loud noise, and then {A} saw a {B.man} with [white hair|@ {color} coat]. "[I know that voice|Is that you, {B}?]" said {A}. "[Play something, {A}|You are small]," said {B}. {gift} And {A} played."#,
    // A family book.
    r#"[In the family book it says|This is what the book says]: {C}, @ {J}, lived from {y1} to {y2}. {C} had {num} children and @ {animal}. {C} could [play the {inst}|sing], but [not swim|not read]. [{C} once walked to the sea and back|{C} was afraid of nothing but the dark]. {A} read it to {B}. "[Are you like {C}?|Is {C} in your family?]" asked {B}.
    "[I cannot sing|I am afraid of the dark too]," said {A}, "[but I can swim|and I like to walk]." [They tried it|On {day} they set out]. {A} walked to the sea, and {B} came too. {gift} It took {num2} days. At the end of the book there is a new line: {A} and {B} [walked to the sea|saw the sea], like {C}."#,
    "The {event} began in {y1}. {times} {end} [{A} wrote a song about it|{A} has read {num} books about it|So it was from {y1} to {y2}].",
    "{A} [lived near the {site}|had a shop] from {y1} to {y2}. {A.he} sold {food} and {food2}, and [was {glad} every day|everybody knew {A}]. [When the {event} came, {A} stayed.|In the end {B} bought the shop.|\"Good morning, {A},\" people said.]",
];
