//! The one form that the program works from: a dictionary converted once, whatever its file's
//! format, into a file that is memory-mapped. Features are rows of it, so that a few hundred
//! features touch only their own pages.

use super::load::{Source, Whole};
use super::{Active, Encoder, Rule};
use crate::artifact::hold::{Held, hold};
use crate::artifact::publish::publish;
use crate::error::{Hint, Result, hinted};
use crate::ids::{DictionaryId, FeatureId};
use crate::vectors::vectors;
use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use safetensors::View;
use safetensors::tensor::TensorView;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

/// Raised when the form changes; part of every file's name.
const FORM: u32 = 3;
/// Bytes of a tensor that one hash is of.
const BLOCK: usize = 1 << 20;
/// Bytes of a hash.
const HASH: usize = 16;
/// The name of the tensor with the hashes of another one's blocks is that of the other and this.
const HASHES: &str = ".blake3";
/// Key of the file's metadata that says whose it is.
const PROGRAM: &str = "program";
const OWN: &str = "circuit-atlas";
/// Features encoded at once.
const SLICE: usize = 2048;
const AGAIN: &str = "remove the file: it is converted again from the original";

/// A converted dictionary of `F` features that reads `d_in` numbers of a hook and reconstructs
/// `d_out`.
pub struct Dictionary {
    /// Which dictionary it is.
    pub id: DictionaryId,
    /// The file that it was converted from.
    pub(crate) origin: PathBuf,
    /// What its config says that is not as it is used here.
    pub(super) notes: Vec<String>,
    path: PathBuf,
    map: MmapedSafetensors,
    width: usize,
    pub(super) d_in: usize,
    bias: Vec<f32>,
    pub(super) rule: Rule,
    b_in: Vec<f32>,
    b_out: Vec<f32>,
}

impl Dictionary {
    /// Opens a dictionary, converted into `folder` first if it is not there yet or is damaged.
    /// `content` is the hash of its files.
    ///
    /// # Errors
    /// When its file cannot be read or is refused, or `folder` cannot be written.
    pub fn open(
        source: &Source,
        d_model: usize,
        folder: &Path,
        content: &str,
    ) -> Result<Dictionary> {
        let path = folder.join(file_name(source, content));
        if stored(&path) != Stored::Whole {
            let _held = held(folder)?;
            // Another run that shares the folder may have made it meanwhile.
            if stored(&path) != Stored::Whole {
                check_ours(&path)?;
                write(&path, source.read(d_model)?)?;
            }
            return Dictionary::map(source, path);
        }
        Dictionary::map(source, path)
    }

    /// # Errors
    /// When [`Dictionary::open`] would replace a file of somebody else.
    pub(crate) fn check_place(source: &Source, folder: &Path, content: &str) -> Result<()> {
        check_ours(&folder.join(file_name(source, content)))
    }

    /// What there is of a dictionary that [`Dictionary::open`] would open, and where.
    pub(crate) fn stored(source: &Source, folder: &Path, content: &str) -> (PathBuf, Stored) {
        let path = folder.join(file_name(source, content));
        let stored = stored(&path);
        (path, stored)
    }

    fn map(source: &Source, path: PathBuf) -> Result<Dictionary> {
        let map = mapped(&path)?;
        let [width, d_in] = *map.get("w_enc")?.shape() else {
            return Err(hinted(
                format!("`{}` is not a converted dictionary", path.display()),
                AGAIN,
            ));
        };
        let vector =
            |name: &str| -> Result<Vec<f32>> { Ok(map.load(name, &Device::Cpu)?.to_vec1()?) };
        let rule = match (map.get("limit").is_ok(), map.get("top_k").is_ok()) {
            (true, _) => Rule::Jump(vector("limit")?),
            (_, true) => Rule::TopK(
                map.load("top_k", &Device::Cpu)?.to_vec1::<u32>()?.iter().sum::<u32>() as usize,
            ),
            _ => Rule::Relu,
        };
        let [bias, b_in, b_out] = ["bias", "b_in", "b_out"].map(vector);
        let (bias, b_in, b_out) = (bias?, b_in?, b_out?);
        Ok(Dictionary {
            id: source.id,
            origin: source.weights.clone(),
            notes: source.notes.clone(),
            path,
            map,
            width,
            d_in,
            bias,
            rule,
            b_in,
            b_out,
        })
    }

    /// Number of features, `F`.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All features' reading half, copied into memory.
    pub fn encoder(&self) -> Result<Encoder> {
        // Through a mapping of its own, so that the pages are let go of when the copy is there.
        let w = mapped(&self.path)?.load("w_enc", &Device::Cpu)?;
        Ok(Encoder {
            w,
            bias: Tensor::new(self.bias.as_slice(), &Device::Cpu)?,
            rule: self.rule.clone(),
        })
    }

    /// `x [T, d_in]` → the active features of each token. The encoder is read a slice at a time, so
    /// that neither it nor the pre-activations of all features are ever in memory whole.
    pub fn active(&self, x: &Tensor) -> Result<Vec<Active>> {
        if self.needs_all() {
            return self.encoder()?.active(x);
        }
        // Through a mapping of its own, so that the pages are let go of.
        let map = mapped(&self.path)?;
        let mut active = vec![Active::new(); x.dim(0)?];
        for start in (0..self.width).step_by(SLICE) {
            let slice = self.slice(&map, start, SLICE.min(self.width - start))?;
            slice.take_active(&mut active, start, x)?;
        }
        Ok(active)
    }

    /// The reading half of `n` features in a row.
    fn slice(&self, map: &MmapedSafetensors, start: usize, n: usize) -> Result<Encoder> {
        let view = map.get("w_enc")?;
        let rows = &view.data()[start * self.d_in * 4..(start + n) * self.d_in * 4];
        Ok(Encoder {
            w: Tensor::from_raw_buffer(rows, DType::F32, &[n, self.d_in], &Device::Cpu)?,
            bias: Tensor::new(&self.bias[start..start + n], &Device::Cpu)?,
            rule: self.rule.select(&(start..start + n).collect::<Vec<_>>()),
        })
    }

    /// The reading half of some features, in the order given. A top-k needs all features to know
    /// any: see [`Rule`].
    pub fn select(&self, features: &[usize]) -> Result<Encoder> {
        let rows =
            features.iter().map(|&f| self.read_direction(f)).collect::<Result<Vec<_>>>()?.concat();
        Ok(Encoder {
            w: Tensor::from_vec(rows, (features.len(), self.d_in), &Device::Cpu)?,
            bias: Tensor::from_iter(features.iter().map(|&f| self.bias[f]), &Device::Cpu)?,
            rule: self.rule.select(features),
        })
    }

    /// Whether an activation depends on all other features of the token.
    pub fn needs_all(&self) -> bool {
        matches!(self.rule, Rule::TopK(_))
    }

    /// What feature `f` reads from its hook, `[d_in]`
    pub fn read_direction(&self, f: usize) -> Result<Vec<f32>> {
        self.row("w_enc", f)
    }

    /// What feature `f` adds to the reconstruction for each unit of activation, `[d_out]`
    pub fn write_direction(&self, f: usize) -> Result<Vec<f32>> {
        self.row("w_dec", f)
    }

    /// The same as [`Dictionary::write_direction`], as it lies in the file.
    pub(super) fn written_by(&self, f: usize) -> Result<&[[u8; 4]]> {
        self.row_of(&self.map.get("w_dec")?, f)
    }

    /// The constant in feature `f`'s pre-activation: `b_enc[f] − b_in·W_enc[:, f]`
    pub fn read_bias(&self, f: usize) -> f32 {
        self.bias[f]
    }

    /// What is subtracted from the input, `[d_in]`; [`Dictionary::read_bias`] has it in it.
    pub fn b_in(&self) -> &[f32] {
        &self.b_in
    }

    /// What is added to the reconstruction, `[d_out]`
    pub fn b_out(&self) -> &[f32] {
        &self.b_out
    }

    /// Active features of each token → reconstruction `[T, d_out]`
    pub fn decode(&self, active: &[Active]) -> Result<Tensor> {
        self.rows(active, &self.b_out)
    }

    /// The active features of one token → its reconstruction, `[d_out]`
    pub fn reconstruction(&self, active: &Active) -> Result<Vec<f32>> {
        let mut sum = self.b_out.clone();
        self.add(&mut sum, active)?;
        Ok(sum)
    }

    /// Activations of some features of each token → what they write, without the constant, `[T,
    /// d_out]`
    pub(crate) fn write(&self, active: &[Active]) -> Result<Tensor> {
        self.rows(active, &vec![0.0; self.b_out.len()])
    }

    /// The same with a constant, a row a token.
    fn rows(&self, active: &[Active], constant: &[f32]) -> Result<Tensor> {
        let width = constant.len();
        let mut rows = vec![0.0; active.len() * width];
        rows.par_chunks_exact_mut(width).zip(active).try_for_each(|(sum, active)| {
            sum.copy_from_slice(constant);
            self.add(sum, active)
        })?;
        Ok(Tensor::from_vec(rows, (active.len(), width), &Device::Cpu)?)
    }

    fn add(&self, sum: &mut [f32], active: &Active) -> Result<()> {
        let view = self.map.get("w_dec")?;
        for &(f, a) in active {
            let (sum, row) = (&mut *sum, self.row_of(&view, f as usize)?);
            vectors!(add_times(sum: &mut [f32], a: f32, row: &[[u8; 4]]));
        }
        Ok(())
    }

    /// What all features add to the reconstruction, `[F, d_out]`, copied into memory.
    pub(super) fn w_dec(&self) -> Result<Tensor> {
        Ok(mapped(&self.path)?.load("w_dec", &Device::Cpu)?)
    }

    /// The same, some features at a time: what `of` makes of each part.
    pub(super) fn by_parts<T: Send>(
        &self,
        of: impl Fn(Tensor) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        // Through a mapping of its own, so that the pages are let go of.
        let (map, width) = (mapped(&self.path)?, self.b_out.len());
        let view = map.get("w_dec")?;
        let part = |rows: &[u8]| {
            let n = rows.len() / (4 * width);
            of(Tensor::from_raw_buffer(rows, DType::F32, &[n, width], &Device::Cpu)?)
        };
        view.data().par_chunks(SLICE * 4 * width).map(part).collect()
    }

    fn row(&self, name: &str, f: usize) -> Result<Vec<f32>> {
        let view = self.map.get(name)?;
        Ok(self.row_of(&view, f)?.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The numbers of a row, in the file.
    fn row_of<'a>(&self, view: &TensorView<'a>, f: usize) -> Result<&'a [[u8; 4]]> {
        let bytes = view.shape().last().copied().unwrap_or(0) * size_of::<f32>();
        let row = view.data().get(f * bytes..(f + 1) * bytes).ok_or_else(|| {
            hinted(
                format!("there is no feature `{}.{f}`", self.id),
                format!("features of `{}` are counted from 0 to {}", self.id, self.width - 1),
            )
        })?;
        Ok(row.as_chunks().0)
    }
}

/// Adds a row of a file, times a number.
#[inline(always)]
fn add_times(sum: &mut [f32], a: f32, row: &[[u8; 4]]) {
    let row = row.iter().map(|bytes| f32::from_le_bytes(*bytes));
    sum.iter_mut().zip(row).for_each(|(sum, w)| *sum += a * w);
}

fn file_name(source: &Source, content: &str) -> String {
    let key = blake3::hash(format!("{FORM} {content}").as_bytes()).to_hex();
    format!("{}-{}.safetensors", source.id, &key[..16])
}

/// Keeps others from converting into the folder at the same time.
fn held(folder: &Path) -> Result<Held> {
    let path = folder.join(".converting");
    let what = || format!("cannot lock `{}`", path.display());
    let hint = "set `output.dictionaries` to a folder that can be written";
    std::fs::create_dir_all(folder).hint(what, hint)?;
    hold(&path, || ()).hint(what, hint)
}

/// What there is under the name of a converted dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nothing.
    Missing,
    /// Something that is not as it was written.
    Damaged,
    /// A dictionary, every byte as it was written.
    Whole,
}

/// Looks at every byte of a file, once in a process.
fn stored(path: &Path) -> Stored {
    static SEEN: Mutex<BTreeSet<(PathBuf, u64, SystemTime)>> = Mutex::new(BTreeSet::new());
    let Ok(metadata) = path.symlink_metadata() else { return Stored::Missing };
    let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let key = (path.to_path_buf(), metadata.len(), modified);
    let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen().contains(&key) {
        return Stored::Whole;
    }
    if !mapped(path).is_ok_and(|map| is_whole(&map)) {
        return Stored::Damaged;
    }
    seen().insert(key);
    Stored::Whole
}

/// Whether every tensor matches its hashes.
fn is_whole(map: &MmapedSafetensors) -> bool {
    let all = map.tensors();
    let own = all.iter().filter(|(name, _)| !name.ends_with(HASHES));
    let matches = |(name, view): &(String, TensorView)| {
        let said = map.get(&format!("{name}{HASHES}"));
        said.is_ok_and(|said| said.data() == hashes(name, view.shape(), view.data()))
    };
    all.len().is_multiple_of(2) && own.clone().count() == all.len() / 2 && own.clone().all(matches)
}

/// The hashes of a tensor's blocks, side by side.
fn hashes(name: &str, shape: &[usize], data: &[u8]) -> Vec<u8> {
    let of = |(i, block): (usize, &[u8])| {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{name} {shape:?} {i} ").as_bytes()).update(block);
        hasher.finalize().as_bytes()[..HASH].to_vec()
    };
    data.par_chunks(BLOCK).enumerate().map(of).collect::<Vec<_>>().concat()
}

/// Whether something is a converted dictionary, damaged or not: its header names this program and
/// the tensors, and a damaged byte changes one of them at most.
fn is_ours(path: &Path) -> bool {
    let mut header = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut header));
    let has = |word: &str| header.windows(word.len()).any(|window| window == word.as_bytes());
    let words = [OWN, "w_enc", "w_dec", "b_out"];
    path.is_file()
        && read.is_ok()
        && words.iter().filter(|word| has(word)).count() + 1 >= words.len()
}

/// # Errors
/// When there is something of somebody else under the name of a converted dictionary.
fn check_ours(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err() || is_ours(path) {
        return Ok(());
    }
    Err(hinted(
        format!(
            "`{}` is not a converted dictionary of this program and would be overwritten",
            path.display()
        ),
        "move it elsewhere, or set `output.dictionaries` to another folder",
    ))
}

fn mapped(path: &Path) -> Result<MmapedSafetensors> {
    // SAFETY: the file appeared under its name whole and is never written again, only removed.
    unsafe { MmapedSafetensors::new(path) }
        .hint(|| format!("cannot read `{}`", path.display()), AGAIN)
}

/// Writes a dictionary's converted form.
fn write(path: &Path, whole: Whole) -> Result<()> {
    let device = &Device::Cpu;
    let mut tensors = vec![
        ("w_enc", whole.encoder.w.contiguous()?),
        ("bias", whole.encoder.bias),
        ("w_dec", whole.w_dec),
        ("b_in", whole.b_in),
        ("b_out", whole.b_out),
    ];
    match whole.encoder.rule {
        Rule::Relu => {}
        Rule::Jump(limits) => tensors.push(("limit", Tensor::new(limits, device)?)),
        Rule::TopK(k) => tensors.push(("top_k", Tensor::new(&[k as u32], device)?)),
    }
    let own = tensors.iter().map(|(name, tensor)| ((*name).to_string(), tensor.clone()));
    let hashed = tensors.iter().map(|(name, tensor)| -> Result<_> {
        let hashes = hashes(name, tensor.dims(), &View::data(&tensor));
        let blocks = hashes.len() / HASH;
        Ok((format!("{name}{HASHES}"), Tensor::from_vec(hashes, (blocks, HASH), device)?))
    });
    let all = own.map(Ok).chain(hashed).collect::<Result<Vec<_>>>()?;
    let said = HashMap::from([(PROGRAM.into(), OWN.into())]);
    let views = all.iter().map(|(name, tensor)| (name, tensor));
    let bytes = safetensors::serialize(views, Some(said))?;
    publish(path, |file| Ok(file.write_all(&bytes)?))
}

/// Removes every converted dictionary of a folder, of this version and of earlier ones, and the
/// folder if nothing else is in it.
///
/// # Errors
/// When one cannot be removed.
pub fn clear(folder: &Path) -> Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    // So that nobody who shares the folder is writing into it.
    let held = held(folder)?;
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.strip_suffix(".safetensors").and_then(|stem| stem.split_once('-'));
        let named = ours.is_some_and(|(id, key)| {
            format!("{id}.0").parse::<FeatureId>().is_ok() && key.len() == 16
        });
        if named && is_ours(&entry.path()) {
            std::fs::remove_file(entry.path()).hint(
                || format!("cannot remove `{}`", entry.path().display()),
                "check that the folder can be written",
            )?;
        }
    }
    drop(held);
    // Not empty: somebody else's files are in it.
    drop(std::fs::remove_dir(folder));
    Ok(())
}
