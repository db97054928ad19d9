//! Pickled tensors, as PyTorch saves them. A pickle is parsed; nothing in it is ever run, and what
//! would take much memory or panics is an error.

use crate::error::{Context, Result, caught};
use anyhow::{bail, ensure};
use candle_core::Tensor;
use candle_core::pickle::{Object, PthTensors, Stack};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of a pickle: those of models and dictionaries have a few thousand, the tensors apart.
const LONGEST: u64 = 16 << 20;
/// How deep values may be inside of each other: dropping and copying them takes the stack.
const DEEPEST: usize = 100;
/// Values and letters that may be made. A pickle of a few bytes can copy a value, the copies
/// together, and so on.
const MOST: usize = 1 << 22;

/// A file of pickled tensors, read one at a time.
pub(crate) struct Pickled {
    path: PathBuf,
    tensors: PthTensors,
}

impl Pickled {
    /// Opens a file that is a dictionary of tensors, or has one under a key.
    ///
    /// # Errors
    /// As of [`object`].
    pub(crate) fn open(path: &Path, key: Option<&str>) -> Result<Pickled> {
        // candle's reader has no limits: it gets only what has been read within them.
        object(path)?;
        let tensors = caught(|| PthTensors::new(path, key))?;
        Ok(Pickled { path: path.into(), tensors })
    }

    /// The names and shapes of all tensors.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&String, &[usize])> {
        self.tensors.tensor_infos().iter().map(|(name, info)| (name, info.layout.dims()))
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(self.tensors.tensor_infos().get(name)?.layout.dims())
    }

    /// # Errors
    /// When there is none of this name, or the file does not hold all of it.
    pub(crate) fn load(&self, name: &str) -> Result<Tensor> {
        let info = self.tensors.tensor_infos().get(name);
        let info = info.with_context(|| format!("there is no tensor `{name}`"))?;
        // A tensor gets its room before it is read.
        let room = info.dtype.size_in_bytes() as u64;
        let room = info.layout.dims().iter().fold(room, |n, d| n.saturating_mul(*d as u64));
        ensure!(room <= self.path.metadata()?.len(), "it is longer than its file");
        let tensor = caught(|| self.tensors.get(name))?;
        tensor.with_context(|| format!("there is no tensor `{name}`"))
    }
}

/// The pickle of a file.
///
/// # Errors
/// When there is not exactly one, it is damaged, or reading it would take much memory.
pub(crate) fn object(path: &Path) -> Result<Object> {
    caught(|| {
        let mut zip = zip::ZipArchive::new(std::fs::File::open(path)?)?;
        let names = zip.file_names().map(|name| Ok(name?.into_owned()));
        let mut names = names.collect::<Result<Vec<String>>>()?;
        names.retain(|name| name.ends_with("data.pkl"));
        let [name] = &names[..] else { bail!("it has {} `data.pkl`, not one", names.len()) };
        let mut pickle = Vec::new();
        zip.by_name(name)?.take(LONGEST + 1).read_to_end(&mut pickle)?;
        ensure!(pickle.len() as u64 <= LONGEST, "its pickle is longer than {LONGEST} bytes");
        unpickled(&pickle)
    })
}

fn unpickled(mut pickle: &[u8]) -> Result<Object> {
    let (mut stack, mut made) = (Stack::empty(), 0);
    loop {
        // A text says how long it is, and gets the room before it is read.
        if let [b'X', a, b, c, d, rest @ ..] = pickle {
            let long = u32::from_le_bytes([*a, *b, *c, *d]);
            ensure!(long as usize <= rest.len(), "its pickle is cut off");
        }
        if stack.read(&mut pickle)? {
            return Ok(stack.finalize()?);
        }
        if let Some(top) = stack.stack().last() {
            made += size(top, DEEPEST)?;
            ensure!(made <= MOST, "its pickle makes too many values");
        }
    }
}

/// The values in a value, and their letters.
fn size(object: &Object, deepest: usize) -> Result<usize> {
    ensure!(deepest > 0, "its pickle has values more than {DEEPEST} deep in each other");
    let within = |object: &Object| size(object, deepest - 1);
    let inside = match object {
        Object::Class { module_name, class_name } => module_name.len() + class_name.len(),
        Object::Unicode(text) => text.len(),
        Object::Tuple(items) | Object::List(items) => {
            items.iter().map(within).sum::<Result<_>>()?
        }
        Object::Dict(pairs) => {
            pairs.iter().map(|(key, value)| Ok(within(key)? + within(value)?)).sum::<Result<_>>()?
        }
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            within(callable)? + within(args)?
        }
        Object::PersistentLoad(id) => within(id)?,
        Object::Int(_)
        | Object::Long(_)
        | Object::Float(_)
        | Object::Bool(_)
        | Object::None
        | Object::Mark => 0,
    };
    Ok(inside + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tempfile::NamedTempFile;

    fn why(pickle: &[u8]) -> String {
        unpickled(pickle).unwrap_err().to_string()
    }

    #[test]
    fn a_pickle_is_read_as_far_as_it_is_small() {
        let pair = |a, b| Object::Tuple(vec![a, b]);
        let one = pair(Object::Int(1), Object::Unicode("a".into()));
        assert_eq!(unpickled(b"K\x01X\x01\0\0\0a\x86q\0h\0\x86.").unwrap(), pair(one.clone(), one));
        assert!(why(b"X\xff\xff\xff\xffa").ends_with("cut off"));

        let nested = |n: usize| [&b"N"[..], &b"\x85".repeat(n), b"."].concat();
        assert!(unpickled(&nested(DEEPEST - 1)).is_ok());
        assert!(why(&nested(DEEPEST)).contains("100 deep"));
        assert!(why(&nested(1 << 20)).contains("100 deep"));

        // Each copy of two copies is twice as large.
        let doubled = |n: usize| [&b"N"[..], &b"q\0h\0\x86".repeat(n), b"."].concat();
        assert!(unpickled(&doubled(10)).is_ok());
        assert!(why(&doubled(60)).contains("too many values"));
        let text = [&b"X\0\0\x01\0"[..], &[b'a'; 1 << 16], &b"q\0".repeat(100)].concat();
        assert!(why(&text).contains("too many values"));
    }

    /// An attention SAE of 160 features as PyTorch saves it.
    const SAE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/tiny/attention_sae/tiny_L0_Hcat_z_lr1.20e-03_l11.00e+00_ds160_bs4096_dc1.00e-06_rsanthropic_rie25000_nr4_v9.pt"
    );

    /// Writes the SAE with other files inside.
    fn saved(change: impl Fn(String, Vec<u8>) -> Vec<(String, Vec<u8>)>) -> NamedTempFile {
        let mut sae = zip::ZipArchive::new(std::fs::File::open(SAE).unwrap()).unwrap();
        let mut file = NamedTempFile::new().unwrap();
        let mut zip = zip::ZipWriter::new(&mut file);
        let plain = zip::write::SimpleFileOptions::default();
        let stored = plain.compression_method(zip::CompressionMethod::Stored);
        for i in 0..sae.len() {
            let mut entry = sae.by_index(i).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let name = entry.name().unwrap().into_owned();
            for (name, bytes) in change(name, bytes) {
                zip.start_file(name, stored).unwrap();
                zip.write_all(&bytes).unwrap();
            }
        }
        zip.finish().unwrap();
        file
    }

    #[test]
    fn a_tensor_gets_no_room_that_its_file_cannot_fill() {
        let whole = Pickled::open(Path::new(SAE), None).unwrap();
        assert_eq!(whole.load("W_enc").unwrap().dims(), [32, 160]);
        assert!(whole.load("W").unwrap_err().to_string().contains("no tensor `W`"));
        // Of as many features as a number can say, in shapes and strides alike.
        let wide = saved(|name, bytes| {
            let mut wide = Vec::new();
            for part in bytes.split_inclusive(|byte| *byte == 0xa0) {
                match part.strip_suffix(b"K\xa0").filter(|_| name.ends_with(".pkl")) {
                    Some(before) => wide.extend([before, b"J\xff\xff\xff\x7f"].concat()),
                    None => wide.extend(part),
                }
            }
            vec![(name, wide)]
        });
        let read = Pickled::open(wide.path(), None).unwrap();
        assert_eq!(read.shape("W_enc").unwrap(), [32, i32::MAX as usize]);
        let why = read.load("W_enc").unwrap_err().to_string();
        assert_eq!(why, "it is longer than its file");
    }

    #[test]
    fn a_file_has_one_pickle() {
        let pickle = |name: &str| name.ends_with("data.pkl");
        let none = saved(|name, bytes| if pickle(&name) { vec![] } else { vec![(name, bytes)] });
        let two = saved(|name, bytes| {
            let again = pickle(&name).then(|| (format!("b/{name}"), bytes.clone()));
            [(name, bytes)].into_iter().chain(again).collect()
        });
        assert!(object(Path::new(SAE)).is_ok());
        for (file, n) in [(none, 0), (two, 2)] {
            let why = object(file.path()).unwrap_err().to_string();
            assert_eq!(why, format!("it has {n} `data.pkl`, not one"));
        }
    }

    /// candle's reader panics at it: numbers that do not fit, arguments that are not there.
    #[test]
    fn a_pickle_without_end_or_start_is_an_error() {
        for pickle in [&b""[..], b".", b"t", b"h\0", b"(", b"\x8a\xff", b"\x86", b"}s."] {
            assert!(unpickled(pickle).is_err(), "{pickle:?}");
        }
    }
}
