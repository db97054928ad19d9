//! A model's tokenizer: text to ids, and ids back to text that a person can read.
//!
//! GPT-2's tokens are bytes, written in its file with a stand-in letter for every byte (`Ġ` is a
//! space). Those letters never leave this file, and a character that several tokens share is never
//! shown as `�`.

use super::cut::Cut;
use super::source::{Content, RawDocument};
use crate::error::{Hint, Result, caught, hinted};
use crate::text_file;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;

const END_OF_TEXT: &str = "<|endoftext|>";
const BELONGS: &str = "use the `tokenizer.json` that belongs to the model";
/// The whole tokenizer.
const WHOLE: &str = "tokenizer.json";
/// The vocabulary and the merges of older models, and the tokens that were added to them.
const PARTS: [&str; 3] = ["vocab.json", "merges.txt", "added_tokens.json"];

/// A loaded tokenizer. Many threads may use it at once.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: u32,
    /// Embedding rows of the model.
    vocabulary: usize,
    cut: Cut,
    specials: BTreeSet<u32>,
    /// What each id stands for.
    bytes: BTreeMap<u32, Vec<u8>>,
    /// Tokens that were added to it, but not to the model.
    left_out: Vec<String>,
}

/// Readable text of one or more tokens that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPiece {
    /// The text in real characters.
    pub text: String,
    /// Places in the ids that were asked for.
    pub tokens: Range<usize>,
    /// A special token is a piece of its own.
    pub special: bool,
}

impl Tokenizer {
    /// The files of a model's folder that its tokenizer is read from: `tokenizer.json`, or where
    /// that is missing `vocab.json`, `merges.txt` and, if there are any, the tokens added to them.
    pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
        let whole = folder.join(WHOLE);
        let [vocabulary, merges, added] = PARTS.map(|name| folder.join(name));
        if whole.exists() || !(vocabulary.exists() && merges.exists()) {
            return vec![whole];
        }
        let added = Some(added).filter(|added| added.exists());
        [vocabulary, merges].into_iter().chain(added).collect()
    }

    /// Loads the tokenizer of a model's folder. `vocabulary` is the number of the model's embedding
    /// rows. Tokens that were added without a row of the model are left out: a text that has one is
    /// read as any other text.
    ///
    /// # Errors
    /// When a file is missing or no tokenizer, has no `<|endoftext|>`, or has an id for which the
    /// model has no row.
    pub fn load(folder: &Path, vocabulary: usize) -> Result<Tokenizer> {
        let files = Tokenizer::files(folder);
        let path = files[0].clone();
        let wrong = |what: String| hinted(format!("`{}` {what}", path.display()), BELONGS);
        let mut left_out = Vec::new();
        let mut inner = match &files[..] {
            [whole] => {
                let file = text_file::read(whole)
                    .hint(|| format!("cannot read `{}`", whole.display()), BELONGS)?;
                let file = without_rows(file.into_bytes(), vocabulary, &mut left_out);
                let read = || tokenizers::Tokenizer::from_bytes(&file).map_err(anyhow::Error::msg);
                caught(read).map_err(|e| wrong(format!("is not a tokenizer: {e}")))?
            }
            parts => from_parts(parts, vocabulary, &mut left_out)?,
        };
        let prepared = || {
            let bos = prepare(&mut inner);
            let (bytes, cut) = (bytes_of_ids(&inner), cut(&inner));
            Ok::<_, anyhow::Error>((bos, bytes, cut))
        };
        let (bos, bytes, cut) =
            caught(prepared).map_err(|e| wrong(format!("is not a tokenizer: {e}")))?;
        let bos = bos.ok_or_else(|| wrong(format!("has no `{END_OF_TEXT}`")))?;
        let specials = specials(&inner, bos);
        match bytes.last_key_value() {
            Some((&last, _)) if last as usize >= vocabulary => Err(wrong(format!(
                "has ids up to {last}, but the model has {vocabulary} embedding rows"
            ))),
            _ => Ok(Tokenizer { specials, inner, bos, vocabulary, cut, bytes, left_out }),
        }
    }

    /// Tokens, such as `[PAD]`, that were added to the tokenizer and for which the model has no row.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// `<|endoftext|>`, GPT-2's begin of sequence and end of text.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// Where texts may be cut so that their parts have the same ids as the whole.
    pub fn cut(&self) -> Cut {
        self.cut
    }

    /// The ids of special tokens, which no ranking has.
    pub fn specials(&self) -> &BTreeSet<u32> {
        &self.specials
    }

    /// Whether an id is a special token, which rankings and statistics leave out.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.contains(&id)
    }

    /// The ids that stand for text: those of tokens, special ones left out.
    pub fn ids_of_text(&self) -> Vec<u32> {
        self.bytes.keys().copied().filter(|id| !self.is_special(*id)).collect()
    }

    /// The ids of a text, without BOS. `<|endoftext|>` written in the text becomes the special
    /// token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encode = || self.inner.encode_fast(text, false).map_err(anyhow::Error::msg);
        let encoding = caught(encode)
            .map_err(|error| hinted(format!("cannot tokenise a text: {error}"), BELONGS))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The ids of a document or a part of one, without BOS: its text encoded, or the ids that it
    /// came with. Where the document begins with `<|endoftext|>`, that is BOS.
    ///
    /// # Errors
    /// When it came with an id for which the model has no row.
    pub fn ids(&self, document: &RawDocument) -> Result<Vec<u32>> {
        let bare = |ids: &[u32]| {
            if document.begins { self.behind_bos(ids).to_vec() } else { ids.to_vec() }
        };
        let ids = match &document.content {
            Content::Text(text) => return Ok(bare(&self.encode(text)?)),
            Content::Tokens(ids) => ids,
        };
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            let what = format!(
                "a document of `{}` has the id {id}, but the model has {} rows",
                document.source, self.vocabulary
            );
            return Err(hinted(what, "use a corpus tokenised for this model, or one with texts"));
        }
        Ok(bare(ids))
    }

    /// Ids without those of BOS that they begin with. Every context gets a BOS of its own; a second
    /// one would be read as the end of another text.
    pub fn behind_bos<'a>(&self, ids: &'a [u32]) -> &'a [u32] {
        &ids[ids.iter().take_while(|id| **id == self.bos).count()..]
    }

    /// The id of a text that is exactly one token.
    pub fn single(&self, text: &str) -> Option<u32> {
        match self.encode(text).ok()?[..] {
            [id] => Some(id),
            _ => None,
        }
    }

    /// One token's text. Bytes that are no whole character are written `\xE2\x80`.
    pub fn token(&self, id: u32) -> String {
        readable(&self.bytes(id))
    }

    /// The text of ids, cut where tokens end. Tokens that share a character stay together.
    pub fn pieces(&self, ids: &[u32]) -> Vec<TokenPiece> {
        let mut pieces = Vec::new();
        let mut start = 0;
        let mut bytes = Vec::new();
        for (i, &id) in ids.iter().enumerate() {
            bytes.extend_from_slice(&self.bytes(id));
            let shares =
                unfinished(&bytes) && ids.get(i + 1).is_some_and(|&next| self.continues(next));
            if !shares {
                pieces.push(TokenPiece {
                    text: readable(&bytes),
                    tokens: start..i + 1,
                    special: self.is_special(id),
                });
                start = i + 1;
                bytes.clear();
            }
        }
        pieces
    }

    /// The text of ids, special tokens and all.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.pieces(ids).into_iter().map(|piece| piece.text).collect()
    }

    /// A model may have more rows than there are tokens; those are named by their number.
    fn bytes(&self, id: u32) -> Cow<'_, [u8]> {
        match self.bytes.get(&id) {
            Some(bytes) => Cow::Borrowed(bytes),
            None => Cow::Owned(format!("[unused {id}]").into_bytes()),
        }
    }

    /// Whether a token begins in the middle of a character.
    fn continues(&self, id: u32) -> bool {
        self.bytes(id).first().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000)
    }
}

/// A `tokenizer.json` without the tokens that were added for ids that the model has no rows for.
/// Any other file, and one without such tokens, is as it was.
fn without_rows(file: Vec<u8>, vocabulary: usize, left_out: &mut Vec<String>) -> Vec<u8> {
    let Ok(mut read) = serde_json::from_slice::<serde_json::Value>(&file) else { return file };
    let learned = |token: &str| read["model"]["vocab"].get(token).is_some();
    let beyond = |token: &serde_json::Value| {
        let id = token["id"].as_u64()?;
        let content = token["content"].as_str()?;
        (id >= vocabulary as u64 && content != END_OF_TEXT && !learned(content))
            .then(|| content.to_string())
    };
    let Some(added) = read["added_tokens"].as_array() else { return file };
    let (gone, kept): (Vec<_>, Vec<_>) =
        added.iter().cloned().partition(|token| beyond(token).is_some());
    if gone.is_empty() {
        return file;
    }
    left_out.extend(gone.iter().filter_map(beyond));
    read["added_tokens"] = kept.into();
    // What puts tokens around a text is not used, and may name one that is gone.
    read["post_processor"] = serde_json::Value::Null;
    serde_json::to_vec(&read).unwrap_or(file)
}

/// GPT-2's byte-level BPE from its vocabulary, its merges and the tokens that were added.
fn from_parts(
    files: &[PathBuf],
    vocabulary: usize,
    left_out: &mut Vec<String>,
) -> Result<tokenizers::Tokenizer> {
    use tokenizers::{AddedToken, models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel};
    let [words, merges, ..] = files else { anyhow::bail!("a tokenizer without merges") };
    let name = |path: &Path| path.to_string_lossy().into_owned();
    let read = || BPE::from_file(&name(words), &name(merges)).build().map_err(anyhow::Error::msg);
    let model = caught(read).map_err(|error| {
        let (words, merges) = (words.display(), merges.display());
        hinted(
            format!("`{words}` and `{merges}` are not the parts of a tokenizer: {error}"),
            BELONGS,
        )
    })?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    let level = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(level)).with_decoder(Some(level));
    let Some(added) = files.get(2) else { return Ok(tokenizer) };
    let wrong = |what: String| hinted(format!("`{}` {what}", added.display()), BELONGS);
    let text =
        text_file::read(added).hint(|| format!("cannot read `{}`", added.display()), BELONGS)?;
    let ids: BTreeMap<String, u32> =
        serde_json::from_str(&text).map_err(|e| wrong(format!("is no list of tokens: {e}")))?;
    let mut in_order: Vec<(u32, String)> = ids.into_iter().map(|(text, id)| (id, text)).collect();
    in_order.sort();
    for (id, text) in in_order {
        if id as usize >= vocabulary {
            left_out.push(text);
            continue;
        }
        let token = [AddedToken::from(text.clone(), true)];
        tokenizer.add_special_tokens(token).map_err(|e| wrong(format!("has `{text}`: {e}")))?;
        if tokenizer.token_to_id(&text) != Some(id) {
            return Err(wrong(format!("has `{text}` as {id}, which is not the next free id")));
        }
    }
    Ok(tokenizer)
}

/// Turns off what a file may ask for besides tokens, and makes `<|endoftext|>` special where it is
/// only a word of the vocabulary. Gives its id.
fn prepare(inner: &mut tokenizers::Tokenizer) -> Option<u32> {
    inner.with_padding(None).with_truncation(None).ok()?;
    let bos = inner.token_to_id(END_OF_TEXT)?;
    if !inner.get_added_tokens_decoder().contains_key(&bos) {
        inner.add_special_tokens([tokenizers::AddedToken::from(END_OF_TEXT, true)]).ok()?;
    }
    Some(bos)
}

/// Where texts may be cut: as GPT-2's pattern allows it, if nothing else looks at them as a whole.
fn cut(inner: &tokenizers::Tokenizer) -> Cut {
    let whole = inner.get_normalizer().is_some()
        || inner
            .get_added_tokens_decoder()
            .values()
            .any(|token| token.rstrip || token.content.contains(char::is_whitespace));
    match inner.get_pre_tokenizer() {
        Some(PreTokenizerWrapper::ByteLevel(byte_level)) if byte_level.use_regex && !whole => {
            // A space that is put in front of each part is none in front of a space.
            if byte_level.add_prefix_space { Cut::BeforeSpaces } else { Cut::BeforeLines }
        }
        _ => Cut::Nowhere,
    }
}

fn specials(inner: &tokenizers::Tokenizer, bos: u32) -> BTreeSet<u32> {
    let added = inner.get_added_tokens_decoder();
    added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| id).chain([bos]).collect()
}

fn bytes_of_ids(inner: &tokenizers::Tokenizer) -> BTreeMap<u32, Vec<u8>> {
    let letters = byte_letters();
    let byte_level =
        |token: String| token.chars().flat_map(|c| bytes_of_letter(&letters, c)).collect();
    let learned = inner.get_vocab(false).into_iter().map(|(token, id)| (id, byte_level(token)));
    // An added token is written in the file as it is.
    let added = inner
        .get_added_tokens_decoder()
        .into_iter()
        .map(|(id, token)| (id, token.content.into_bytes()));
    learned.chain(added).collect()
}

fn bytes_of_letter(letters: &BTreeMap<char, u8>, letter: char) -> Vec<u8> {
    letters.get(&letter).map_or_else(|| letter.to_string().into_bytes(), |&byte| vec![byte])
}

/// GPT-2's letters for bytes: printable bytes are themselves, the others come from U+0100 on, in
/// order.
fn byte_letters() -> BTreeMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let own = (0..=u8::MAX).filter(printable).map(|byte| (char::from(byte), byte));
    let moved = ('\u{100}'..).zip((0..=u8::MAX).filter(|byte| !printable(byte)));
    own.chain(moved).collect()
}

/// Whether bytes end within a character that further bytes could complete.
fn unfinished(bytes: &[u8]) -> bool {
    let rest = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none())
}

fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::corpus::cut::parts;
    use crate::error::report;
    use rand::{RngExt, SeedableRng};

    /// The tokenizer of the demo model.
    pub(crate) fn demo() -> Tokenizer {
        Tokenizer::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model"), 2560).unwrap()
    }

    /// The demo's tokenizer file, changed.
    fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Result<Tokenizer> {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model/tokenizer.json");
        let mut file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(demo).unwrap()).unwrap();
        change(&mut file);
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        Tokenizer::load(folder.path(), 2560)
    }

    #[test]
    fn text_comes_back_as_it_was() {
        let tokenizer = demo();
        for text in [
            "",
            "When Mary and John",
            "Søren's café — “naïve” 日本 🦀\n\n\t<b>&amp;</b>",
            " \u{FFFD} \u{0} x",
        ] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(tokenizer.decode(&ids), text);
            let pieces = tokenizer.pieces(&ids);
            let covered: Vec<usize> =
                pieces.iter().flat_map(|piece| piece.tokens.clone()).collect();
            assert_eq!(covered, (0..ids.len()).collect::<Vec<_>>());
        }
    }

    /// Texts of pieces that a pattern could join across a cut.
    fn nasty(n: usize) -> Vec<String> {
        const PIECES: [&str; 27] = [
            " ",
            " ",
            "  ",
            "   ",
            "\n",
            "\n\n",
            "\r\n",
            "\t",
            "\u{a0}",
            "\u{3000}",
            "\u{85}",
            "\u{1c}",
            "a",
            "word",
            "Mary",
            "'s",
            "'",
            "'ll",
            "don't",
            "17",
            "½",
            "é",
            "e\u{301}",
            "日本",
            "🦀",
            "...",
            "<|endoftext|>",
        ];
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        let mut text =
            || (0..60).map(|_| PIECES[rng.random_range(0..PIECES.len())]).collect::<String>();
        (0..n).map(|_| text()).collect()
    }

    #[test]
    fn the_parts_of_a_text_have_the_ids_of_the_whole() {
        let prefixed = changed(|file| file["pre_tokenizer"]["add_prefix_space"] = true.into());
        let lstrip = changed(|file| file["added_tokens"][0]["lstrip"] = true.into());
        let all = [demo(), prefixed.unwrap(), lstrip.unwrap()];
        let cuts = [Cut::BeforeLines, Cut::BeforeSpaces, Cut::BeforeLines];
        assert_eq!(all.each_ref().map(Tokenizer::cut), cuts);
        let (mut cut, mut texts) = (0, nasty(300));
        texts.extend(["".into(), " ".into(), "\n ".repeat(30), "wordword".repeat(20)]);
        texts.push("When Mary and John went to the store,\nMary'll give 20 dollars. ".repeat(9));
        for tokenizer in &all {
            for text in &texts {
                let whole = tokenizer.encode(text).unwrap();
                for about in (1..12).chain([20, 50, 100, 1000]) {
                    let parts: Vec<&str> = parts(text, tokenizer.cut(), about).collect();
                    let ids = parts.iter().flat_map(|part| tokenizer.encode(part).unwrap());
                    assert_eq!(ids.collect::<Vec<_>>(), whole, "{parts:?}");
                    cut += parts.len() - 1;
                }
            }
        }
        assert!(cut > 20_000, "hardly a text was cut: {cut}");
    }

    #[test]
    fn a_tokenizer_that_looks_at_the_whole_text_gets_it_whole() {
        let cut = |change: fn(&mut serde_json::Value)| changed(change).unwrap().cut();
        assert_eq!(
            cut(|file| file["normalizer"] = serde_json::json!({"type": "NFC"})),
            Cut::Nowhere
        );
        assert_eq!(cut(|file| file["added_tokens"][0]["rstrip"] = true.into()), Cut::Nowhere);
        assert_eq!(cut(|file| file["pre_tokenizer"]["use_regex"] = false.into()), Cut::Nowhere);
        assert_eq!(cut(|file| file["pre_tokenizer"] = serde_json::Value::Null), Cut::Nowhere);
    }

    #[test]
    fn a_damaged_file_never_panics() {
        let folder = tempfile::tempdir().unwrap();
        let data = Path::new(env!("CARGO_MANIFEST_DIR"));
        let whole = std::fs::read_to_string(data.join("demo/model/tokenizer.json")).unwrap();
        // Merges of tokens that are not there, an id far off, a token twice, a byte lost.
        let damages: [(&str, &str); 5] = [
            ("\"merges\"", "\"merge\""),
            ("\"version\": \"1.0\"", "\"version\": \"9.0\""),
            ("\"id\": 2559", "\"id\": 4294967295"),
            ("\"ByteLevel\"", "\"Metaspace\""),
            ("\"BPE\"", "\"Unigram\""),
        ];
        for (old, new) in damages {
            let text = whole.replace(old, new);
            std::fs::write(folder.path().join("tokenizer.json"), text).unwrap();
            if let Err(error) = Tokenizer::load(folder.path(), 2560) {
                assert!(report(&error).contains("tokenizer.json"), "{}", report(&error));
            }
        }
    }

    #[test]
    fn tokens_that_share_a_character_are_one_piece() {
        let tokenizer = demo();
        let ids = tokenizer.encode("a🦀b").unwrap();
        let crab = ids.len() - 2;
        assert!(crab > 1, "the crab should be rare enough to be split: {ids:?}");
        let pieces = tokenizer.pieces(&ids);
        let texts: Vec<&str> = pieces.iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(texts, ["a", "🦀", "b"]);
        assert_eq!(pieces[1].tokens, 1..1 + crab);
    }

    #[test]
    fn a_cut_character_is_escaped_byte_by_byte() {
        let tokenizer = demo();
        let ids = tokenizer.encode("🦀").unwrap();
        assert!(ids.len() > 1);
        let (head, tail) = ids.split_at(1);
        let (head, tail) = (tokenizer.decode(head), tokenizer.decode(tail));
        assert_eq!(format!("{head}{tail}"), "\\xF0\\x9F\\xA6\\x80");
        let bos = tokenizer.bos();
        let pieces = tokenizer.pieces(&[ids[0], bos]);
        assert_eq!(
            pieces.len(),
            2,
            "a special token is a piece of its own, even behind half a character"
        );
        assert_eq!(pieces[1], TokenPiece { text: END_OF_TEXT.into(), tokens: 1..2, special: true });
    }

    #[test]
    fn a_token_is_shown_without_stand_ins() {
        let tokenizer = demo();
        let mary = tokenizer.single(" Mary").unwrap();
        assert_eq!(tokenizer.token(mary), " Mary");
        assert_eq!(tokenizer.token(2559), END_OF_TEXT);
        assert_eq!(tokenizer.token(99_999), "[unused 99999]");
        let shown: String = (0..2560).map(|id| tokenizer.token(id)).collect();
        assert!(!shown.contains(['�', 'Ġ', 'Ċ']), "{shown}");
    }

    #[test]
    fn end_of_text_in_a_text_is_the_special_token() {
        let tokenizer = demo();
        let ids = tokenizer.encode("one<|endoftext|> two").unwrap();
        let specials: Vec<&u32> = ids.iter().filter(|id| tokenizer.is_special(**id)).collect();
        assert_eq!(specials, [&tokenizer.bos()]);
        assert!(!tokenizer.is_special(0));
        assert_eq!(tokenizer.single("<|endoftext|>"), Some(tokenizer.bos()));
    }

    #[test]
    fn a_document_that_begins_with_end_of_text_has_it_once_as_bos() {
        let tokenizer = demo();
        let document = |content| RawDocument {
            source: "a.jsonl".into(),
            content,
            begins: true,
            ends: true,
            replaced: 0,
        };
        let bos = tokenizer.bos();
        let plain = tokenizer.encode("one two<|endoftext|>three").unwrap();
        for begin in ["", "<|endoftext|>", "<|endoftext|><|endoftext|>"] {
            let text = format!("{begin}one two<|endoftext|>three");
            let ids = [vec![bos; begin.len() / 13], plain.clone()].concat();
            for content in [Content::Text(text), Content::Tokens(ids)] {
                assert_eq!(tokenizer.ids(&document(content)).unwrap(), plain);
            }
        }
    }

    #[test]
    fn end_of_text_is_special_even_where_the_file_has_it_as_a_plain_word() {
        let tokenizer = changed(|file| {
            file["added_tokens"] = serde_json::json!([]);
            file["model"]["vocab"][END_OF_TEXT] = 2559.into();
        });
        let tokenizer = tokenizer.unwrap();
        assert_eq!(tokenizer.single(END_OF_TEXT), Some(2559));
        assert!(tokenizer.is_special(2559));
        assert_eq!(tokenizer.token(2559), END_OF_TEXT);
    }

    #[test]
    fn padding_and_truncation_of_the_file_are_ignored() {
        let tokenizer = changed(|file| {
            let cut = "{\"max_length\": 2, \"strategy\": \"LongestFirst\", \"stride\": \
                0, \"direction\": \"Right\"}";
            file["truncation"] = serde_json::from_str(cut).unwrap();
        });
        let text = "When Mary and John went to the store";
        assert_eq!(tokenizer.unwrap().encode(text).unwrap(), demo().encode(text).unwrap());
    }

    #[test]
    fn a_tokenizer_that_does_not_fit_is_refused() {
        let without = changed(|file| file["added_tokens"] = serde_json::json!([]));
        assert!(report(&without.unwrap_err()).contains("has no `<|endoftext|>`"));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model");
        let small = report(&Tokenizer::load(&folder, 2559).unwrap_err());
        assert!(
            small.contains("has ids up to 2559, but the model has 2559 embedding rows"),
            "{small}"
        );
        assert!(
            small.contains("hint: use the `tokenizer.json` that belongs to the model"),
            "{small}"
        );
        let missing = tempfile::tempdir().unwrap();
        assert!(report(&Tokenizer::load(missing.path(), 9).unwrap_err()).contains("cannot read"));
        std::fs::write(missing.path().join("tokenizer.json"), "{}").unwrap();
        assert!(
            report(&Tokenizer::load(missing.path(), 9).unwrap_err()).contains("is not a tokenizer")
        );
    }

    #[test]
    fn threads_share_a_tokenizer() {
        fn shared<T: Send + Sync>() {}
        shared::<Tokenizer>();
    }

    /// The demo's tokenizer as older models have it, with these tokens added.
    fn in_parts(added: &str) -> (tempfile::TempDir, Result<Tokenizer>) {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model/tokenizer.json");
        let file: serde_json::Value =
            serde_json::from_slice(&std::fs::read(demo).unwrap()).unwrap();
        let mut vocabulary = file["model"]["vocab"].clone();
        vocabulary[END_OF_TEXT] = 2559.into();
        let merge = |pair: &serde_json::Value| match pair {
            serde_json::Value::String(pair) => pair.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let merges: Vec<String> =
            file["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
        let folder = tempfile::tempdir().unwrap();
        let put =
            |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        put("vocab.json", vocabulary.to_string());
        put("merges.txt", format!("#version: 0.2\n{}\n", merges.join("\n")));
        if !added.is_empty() {
            put("added_tokens.json", added.into());
        }
        let loaded = Tokenizer::load(folder.path(), 2560);
        (folder, loaded)
    }

    const TEXTS: [&str; 5] = [
        "When Mary and John went to the store, John gave a drink to Mary.",
        " two  spaces\n\nand\ttabs, don't; they're  ",
        "Søren's café — “naïve” 日本 🦀",
        "one<|endoftext|> two <|endoftext|>",
        "12345 a.b [PAD] c_d",
    ];

    #[test]
    fn vocabulary_and_merges_give_the_same_ids() {
        let (folder, loaded) = in_parts("");
        let (loaded, demo) = (loaded.unwrap(), demo());
        for text in TEXTS {
            assert_eq!(loaded.encode(text).unwrap(), demo.encode(text).unwrap(), "{text:?}");
        }
        assert_eq!((loaded.bos(), loaded.specials()), (demo.bos(), demo.specials()));
        assert_eq!(loaded.ids_of_text(), demo.ids_of_text());
        let files = Tokenizer::files(folder.path());
        assert!(
            files.iter().map(|path| path.file_name().unwrap()).eq(["vocab.json", "merges.txt"])
        );
        std::fs::write(folder.path().join("merges.txt"), "#version: 0.2\nonly\n").unwrap();
        let error = report(&Tokenizer::load(folder.path(), 2560).unwrap_err());
        assert!(error.contains("merges.txt` are not the parts of a tokenizer"), "{error}");
    }

    #[test]
    fn a_token_that_was_added_without_a_row_is_left_out() {
        let pad = changed(|file| {
            let token = serde_json::json!({
                "id": 2560, "content": "[PAD]", "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            });
            file["added_tokens"].as_array_mut().unwrap().push(token);
        });
        let demo = demo();
        assert_eq!(demo.left_out(), [""; 0]);
        for tokenizer in [pad.unwrap(), in_parts("{\"[PAD]\": 2560}").1.unwrap()] {
            assert_eq!(tokenizer.left_out(), ["[PAD]"]);
            for text in TEXTS {
                assert_eq!(tokenizer.encode(text).unwrap(), demo.encode(text).unwrap());
            }
        }
        // With a row it is a token, and special.
        let folder = in_parts("{\"[PAD]\": 2560}").0;
        let tokenizer = Tokenizer::load(folder.path(), 2561).unwrap();
        assert_eq!((tokenizer.single("[PAD]"), tokenizer.is_special(2560)), (Some(2560), true));
        let error = report(&in_parts("{\"[PAD]\": 77}").1.unwrap_err());
        assert!(error.contains("has `[PAD]` as 77, which is not the next free id"), "{error}");
    }
}
