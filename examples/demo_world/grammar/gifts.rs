//! Stories that begin with somebody giving something to somebody, and the
//! lines that follow such a sentence elsewhere. `{S}` gave the `{o}`, `{R}`
//! got it.

use super::words::Kind;

/// What the receiver does at once; follows the receiver's name.
pub(super) fn keep(kind: Kind) -> &'static str {
    match kind {
        Kind::Small => {
            "[put the {o} in {R.his} pocket|held the {o} in one hand|turned the {o} over and over|looked at the {o} in the light]"
        }
        Kind::Thing => {
            "[took the {o} with both hands|held the {o} with both hands|looked at the {o} from every side|put the {o} down with care]"
        }
        Kind::Wear => {
            "[put the {o} on|looked very fine in the {o}|held the {o} up to the light|put the {o} on at once]"
        }
        Kind::Food => {
            "[ate the {o} slowly|ate half of the {o} at once|ate the {o} in no time|ate the {o} with a smile]"
        }
        Kind::Drink => "[drank all of it|drank it slowly|held the cold cup in both hands]",
        Kind::Read => {
            "[opened the {o} at once|put the {o} under one arm|looked inside the {o}|looked at the {o} for a long time]"
        }
        Kind::Kiss => {
            "[laughed and went red|closed both eyes|did not know what to say|smiled all day]"
        }
    }
}

/// What is true of the gift much later; follows a name or a pronoun.
pub(super) fn later(kind: Kind) -> &'static str {
    match kind {
        Kind::Small | Kind::Thing => {
            "[still had the {o}|still kept the {o} by the window|still looked at the {o} now and then]"
        }
        Kind::Wear => "[still wore the {o}|still had the {o}|wore the {o} every {day3}]",
        Kind::Food | Kind::Drink => "[still talked about the {o}|could still taste the {o}]",
        Kind::Read => "[still looked at the {o} now and then|still had the {o}]",
        Kind::Kiss => "[still thought of the {o}|still talked about the {o}]",
    }
}

/// What follows an indirect-object sentence inside a story.
pub(super) const INNER_THANKS: &[&str] = &[
    "{R} {keep}.",
    "\"Thank you,\" said {R}.",
    "\"Is it for me?\" asked {R}. \"Yes,\" said {S}.",
    "{R} was [happy|glad|proud] and {keep}.",
    "It was a good {o}, and {R} {keep}.",
    "{S} [smiled|laughed|waited], and {R} {keep}.",
    "{R} thanked {S} [twice|with all {R.his} heart|for it].",
    "",
];

/// What follows the opening sentence.
pub(super) const SHAPES: &[&str] = &[
    // A birthday.
    r#"[It was {R}'s birthday|It was the birthday of {R}], and [nobody else had thought of it|{R} had told nobody|{S} had saved money for weeks].
    {R} {keep}. "[How did you know?|Who told you?]" [asked {R}|{R} asked]. "[Your {K} told me|I never forget a birthday|I wrote it on my hand]," said {S}.
    [They had cake and sang a song|They sang until it was dark|The {J} at the {place} sang a song for them]. [When {R} went home|At night], {R.he} told {R.his} {K} [about the {o}|about {S}|all about the day]. "{S} is a good friend," said {R.his} {K}. [It was the best birthday of all|A year later {R} {later}]."#,
    // Thanks for help.
    r#"The week before, {R} had [helped {S} with {subject}|carried water for {S}|found {S}'s {pet} in the snow], and {S} [had not forgotten it|wanted to say thank you].
    "[This is for you|It is not much]," said {S}. "[You were so kind to me|Nobody else helped me]." {R} {keep}. "[It was nothing|It was easy|Friends help friends]," said {R}.
    [Outside, the {season} sun was going down|It was @ {weather} evening|The {color} lamps were lit], and [the two friends|{S} and {R}] [walked home|talked about {topic}|sat for an hour]. [Since that day {S} and {R} have been friends|From then on they met every {day}]."#,
    // Making up.
    r#"[They had not spoken for a week|For {num} days they had not said a word]. [The quarrel had been about {topic}|It had all begun with a game of chess], and [both were too proud to say sorry|each thought the other was wrong].
    Now {R} looked [at the floor|out of the window|at {S}]. ["I am sorry," said {S}. "I am sorry too," said {R}|"I was wrong," said {S}. "So was I," said {R}|"It was not your fault," said {S}. "It was not yours," said {R}], and {R.he} {keep}.
    [Then both began to laugh|{S} was so glad that {S.he} laughed out loud]. [They walked home together|They shared a pot of tea], and [the quarrel was over|nobody spoke of the quarrel again]. [Even a year later {R} {later}|It is hard to say sorry, but it is worth it]."#,
    // Goodbye.
    r#"[It was the last day|It was time to say goodbye]. {S} was going to [live by the sea|move to another town|work on a ship], and the train left at {time}. ["Will you write to me?" said {S}. "Every {day}," said {R}.|"Do not forget me," said {S}. "Never," said {R}.|"I do not want to go," said {S}. "I know," said {R}.]
    {R} {keep}. [The bell rang|The {J} called], the doors closed, and {R} [ran along the train|stood there until it was gone|held up @ {color} scarf].
    [In {month} the first letter came|A letter came every month]. "Dear {R}, here it is {weather}. [Do you still think of the {place}?|I miss the {place}.] Your {S}." {R} [smiled|read it twice]. ^{R.he} {later}."#,
    // The wrong thing.
    r#""[Oh|But]," said {R}, "[I asked for @ {thing}|I wanted @ {thing}]." {S} [went red|looked sad]. "[There was no {thing} left|I could not find @ {thing}]," said {S}. "[So I took this|This was all they had]."
    {R} [thought for a moment|looked at {S} and laughed]. "[It does not matter|Never mind]," {R.he} said, "[it is even better|I like it]." And {R} {keep}.
    The next {day} {S} [went out early|took the first bus] and came back with @ {thing}. "[Now you have both|Here it is at last]," said {S}. [{R} could only laugh|They were both very {glad}]."#,
    // A lost bet.
    r#"[{S} had lost a bet|They had made a bet, and {S} had lost]. "[The {animal} is faster than the {animal2}|It will rain on {day}|There are {num} steps on these stairs]," {R} had said, and {R} was right.
    [So {S} had to pay|A bet is a bet]. {R} {keep}. "[Shall we bet again?|One more bet?]" asked {S}. "[No|Better not]," said {R}, "[you would lose again|I would win again]."
    But {S} did not stop. They made a bet about {topic}, and this time {R} lost. "[Now it is your turn|Now we are even]," said {S}, and both [laughed|were {glad}]."#,
    // Somebody else wants to know.
    r#"{R} {keep}. Just then {C} came in. "[What is going on here?|What do you have there?]" asked {C}. "[It is from {S}|{S} was kind to me]," said {R}.
    {C} [looked at the floor|was quiet]. "[Nobody thinks of me|I never get anything]," said {C}. [{S} and {R} looked at each other|{S} felt sorry for {C}]. "[Come and sit with us|Stay here]," said {R}, "[we can share|there is room for three]."
    So {S}, {R} and {C} [sat down together|stayed until it was dark] and talked about {topic}. [When they left|When it was dark|In the end], {C} was {glad} again."#,
    // A telephone call.
    r#"That evening the telephone rang. "Hello, this is {R}." "Hello, {R}, it is {S}. [Did you get home?|Are you home?]" "[Yes, the bus was late|Yes, just now]," said {R}. "[And thank you for the {o}|I was so glad about the {o}]."
    "[It was nothing|I am glad]," said {S}. "[What are you doing?|What is new?]" "[I am cooking {food}|I am reading|I am looking at the rain]," said {R}. [They talked about {topic}|They talked and talked] until {R}'s {K} said, "[That is enough for today|It is late]." "Good night, {S}." "Good night, {R}.""#,
    // The way home, with a refrain.
    r#"[Then they set out for home|The way home was long]. It was {weather}, and so they walked on. They came to [a bridge|an old wall], and so they walked on. They met @ {size} {animal}, and so they walked on. [{S} sang a song|{S} told a story about @ {animal2}], {R} {keep}, and so they walked on.
    [At last|In the end] they saw a light in a window. "[Is it still far?|Are we home?]" asked {R}. "[We are home|This is our door]," said {S}. {R}'s {K} had made {food}, and the door was open, and so they walked in."#,
    // A thief with four legs.
    r#"[But|Then] @ {size} {pet} [came out of the dark|jumped out of the dark|ran in through the door] and [wanted to see it too|made a loud noise]. {R} [stepped back|was afraid], and {S} [laughed|shouted]. "[Whose {pet} is this?|Where does the {pet} come from?]" asked {R}. "[I think it is lost|It has no home]," said {S}.
    They looked around the {place}, but nobody [was looking for @ {pet}|knew it]. So {R} {keep}, and {S} took the {pet} home. {S.his} {K} was [not happy at first|not so sure about it]. [Now|Today] the {pet} sleeps on @ {color} blanket, and its name is [Button|{day}|{month}]."#,
    // Rain.
    r#"[Outside it began to rain|Then the rain came], first a little, then more and more. [There was only one umbrella|They had no umbrella], and [the last bus had gone|it was a long way home]. "[We can wait here|Let us stay]," said {R}. "[Or we can run|I like the rain]," said {S}.
    {R} {keep}. They waited for {num} minutes, then for an hour. {S} told a story about {S.his} {K} and the {size} {animal}. [When the rain stopped|At {time}], the street was [full of water|like a river], and the sky was [red|blue|gold]. "[Look|See]," said {R}, "[that was worth it|it is going to be a fine day].""#,
    // Told years later.
    r#"[That was many years ago|That was a long time ago]. [Since then a lot has changed|The {place} is gone now]. {S} is @ {J} [by the sea|in the city], and {R} has a house with @ {color} door.
    But every {month} {R} [writes a letter to|calls] {S}. "[Do you remember the {place}?|Do you remember that day?]" {R} asks. "[How could I forget?|Of course]," says {S}. [Then they laugh like children|Then they talk about {topic}].
    "[I was so afraid|I had no money]," {S} says, "[but I wanted to see you smile|but I had to do it]." And {R} [did smile|smiles again]."#,
    // Work.
    r#"[There was a lot of work to do|They had work to do]: {num} boxes had to be carried, and [the {J} was waiting|it was already {time}]. {R} {keep}, and then [they began|both began]. {S} took the {size} boxes, and {R} took the others.
    "[How many are left?|Are we done?]" asked {R}. "[Not yet|Only two]," said {S}. At {time2} [the last box was in its place|they were done]. The {J} gave them {n} dollars each. "[You worked well|Come again on {day}]," {J.he} said. {S} and {R} were tired but {glad}, and [went to eat {food}|walked home slowly]."#,
    // A secret.
    r#""[It is a secret|Tell nobody]," said {S}. "[I found it here|It belonged to my {K}|I have kept it for you]." {R} [looked around|smiled], then {keep}.
    [But a secret is hard to keep|A secret wants to come out]. On {day} {R} told {C}, on {day+1} {C} told the {J}, and by {day+3} the whole town knew. "[Why did you tell?|Was it not a secret?]" asked {S}. {R} [went red|looked down]. "[I was so happy that I had to|I told only one]," said {R}.
    {S} [had to laugh|thought about it]. "[Then it is no secret now|Next time I will tell the wall]," said {S}."#,
    // Something inside / a message.
    r#"{R} {keep}. "[Do you know what day it is?|Do you know why?]" asked {S}. "[No|{day}]," said {R}. "[It is a year since we met|We met here {num} years ago]," said {S}. {R} had [forgotten it|not thought of it], and [went red|was a little sad]. "[I have nothing for you|And I came with nothing]," said {R}.
    "[You can sing for me|Then tell me a story]," said {S}. {R} [thought for a moment|closed both eyes] and began: "Once there was @ {animal} who had no friends. Then @ {animal2} came to the {place}..." [It was a long story|The story was about them]. "[And then?|How does it end?]" asked {S}. "[It has no end|It goes on next {day2}]," said {R}."#,
    // Numbers: waiting in line.
    r#"There was a long line of people at the {place}. {S} was number {n}, and {R} was number {big}. "[Come to me|Stand here]," said {S}. "[I cannot|That is not right]," said {R}, and {keep}. So they waited. Number one, number two, number three. [An hour went by|It got dark]. "Number {n}!" called the {J}. {S} [did not move|looked at {R}].
    "[It is your turn, {S}|Go in]," said {R}. "[I can wait|I have time]," said {S}, "[it is better with two|we came here together]." At {time} the {J} called number {big}. They went in, and {S} was the last of all. "[That took long|You are the last]," said the {J}. "[We had a good talk|It was not long]," said {R} and {S}."#,
    // The twin gifts.
    r#"{R} began to laugh. "[Wait here|Close your eyes]," said {R}, and took @ {thing} out of a bag. "[This is for you|I have something too]." {S} [could not believe it|laughed too]. [They had both had the same idea|Each had wanted to give the other something]. {R} {keep}, and {S} [held the {thing} up|looked at the {thing} again and again].
    "[How much did it cost?|Where did you find it?]" asked {S}. "[I will not tell|At the market, for {n} dollars]," said {R}. "[It is {color}|It is old], like the one I lost in {month}," said {S}. "[I know|That is why]," said {R}. They [walked home|went to eat {food}], and each was [sure that the other was the best friend in the world|{glad}]."#,
    // Short ones.
    "{R} {keep}. [\"Thank you,\" said {R}.|{S} was {glad}.|Then they went home.]",
    "{R} [smiled|laughed|was very {glad}]. [Nobody else saw it|It was a good day|A year later {R} {later}].",
    "[\"For me?\" asked {R}. \"Yes, for you,\" said {S}.|\"What is it for?\" asked {R}. \"Wait and see,\" said {S}.] {R} {keep}.",
];
