//! Variance explained, from the numbers of two tensors in one pass over them.

use crate::error::{Result, hinted};
use crate::vectors::vectors;
use candle_core::{Storage, Tensor};
use rayon::prelude::*;

/// Rows that are summed at once.
const ROWS: usize = 64;

/// What variance explained is made of, column by column.
pub(super) struct Fit {
    /// Of what is reconstructed, and of its square.
    y: Vec<f64>,
    y2: Vec<f64>,
    /// Of the square of what is left.
    residual: Vec<f64>,
    tokens: f64,
}

/// The numbers of a tensor, row by row.
pub(super) fn with_numbers<T>(x: &Tensor, of: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(storage), Some((from, to))) => Ok(of(&storage.as_slice::<f32>()?[from..to])),
        _ => Err(hinted("numbers on another device", "`machine.device` must be `cpu`")),
    }
}

impl Fit {
    /// Of what is reconstructed `y [T, D]`, and its reconstruction.
    pub(super) fn of(y: &Tensor, reconstruction: &Tensor) -> Result<Fit> {
        let (tokens, d) = y.dims2()?;
        let some = |(y, reconstruction): (&[f32], &[f32])| {
            let mut sums = Fit::none(d);
            let fit = &mut sums;
            vectors!(add(fit: &mut Fit, y: &[f32], reconstruction: &[f32]));
            sums
        };
        let each: Vec<Fit> = with_numbers(y, |y| {
            with_numbers(reconstruction, |reconstruction| {
                let rows = y.par_chunks(ROWS * d).zip(reconstruction.par_chunks(ROWS * d));
                rows.map(some).collect()
            })
        })??;
        // Added up in the order of the tokens, so that the sums do not depend on the threads.
        let mut all = Fit { tokens: tokens as f64, ..Fit::none(d) };
        let onto = |sum: &mut Vec<f64>, part: &[f64]| {
            sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
        };
        for part in &each {
            onto(&mut all.y, &part.y);
            onto(&mut all.y2, &part.y2);
            onto(&mut all.residual, &part.residual);
        }
        Ok(all)
    }

    fn none(d: usize) -> Fit {
        Fit { y: vec![0.0; d], y2: vec![0.0; d], residual: vec![0.0; d], tokens: 0.0 }
    }

    fn variance(&self) -> f64 {
        let squares: f64 = self.y2.iter().sum();
        squares - self.y.iter().map(|y| y * y).sum::<f64>() / self.tokens
    }

    pub(super) fn explained(&self) -> f64 {
        let variance = self.variance();
        if variance > 0.0 { 1.0 - self.residual.iter().sum::<f64>() / variance } else { 0.0 }
    }
}

#[inline(always)]
fn add(fit: &mut Fit, y: &[f32], reconstruction: &[f32]) {
    let d = fit.y.len();
    for (y, reconstruction) in y.chunks_exact(d).zip(reconstruction.chunks_exact(d)) {
        let sums = fit.y.iter_mut().zip(&mut fit.y2).zip(&mut fit.residual);
        for (((sum, square), residual), (y, found)) in sums.zip(y.iter().zip(reconstruction)) {
            let (y, left) = (f64::from(*y), f64::from(y - found));
            *sum += y;
            *square += y * y;
            *residual += left * left;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn explained_is_one_less_what_is_left_of_the_variance() {
        let rows = |of: fn(usize) -> f32| -> Tensor {
            let all: Vec<f32> = (0..200 * 3).map(of).collect();
            Tensor::from_vec(all, (200, 3), &Device::Cpu).unwrap()
        };
        // Columns 5, 0 or 1 in turn, and a ramp; the reconstruction is off by 0.5 in the first.
        let y = rows(|i| match i % 3 {
            0 => 5.0,
            1 => (i / 3 % 2) as f32,
            _ => (i / 3) as f32,
        });
        let near = (&y + rows(|i| if i % 3 == 0 { 0.5 } else { 0.0 })).unwrap();
        let variance = 200.0 * 0.25 + (200.0 * (200.0 * 200.0 - 1.0)) / 12.0;
        let found = Fit::of(&y, &near).unwrap();
        assert!((found.variance() - variance).abs() < 1e-6 * variance, "{}", found.variance());
        assert!((1.0 - found.explained() - 200.0 * 0.25 / variance).abs() < 1e-9);
        // Parts of tensors, and numbers that do not lie one behind the other.
        let part = |x: &Tensor| x.narrow(0, 3, 70).unwrap().narrow(1, 1, 2).unwrap();
        assert_eq!(Fit::of(&part(&y), &part(&near)).unwrap().explained(), 1.0);
        let flat = rows(|_| 2.0);
        assert_eq!(Fit::of(&flat, &y).unwrap().explained(), 0.0);
    }
}
