//! Parts of a data set: filtered, selected, split.

use pt_index::Leaf;

use super::DataSet;
use crate::error::{Error, Result};
use crate::permutation::Permutation;

impl DataSet {
    /// Returns the samples whose column has a value that is wanted. Opens no file.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// use pt_index::Leaf;
    /// let sevens = data.filter("label", |label| label == Leaf::Int(7));
    /// # }
    /// ```
    #[must_use]
    pub fn filter(&self, column: &str, mut wanted: impl FnMut(Leaf<'_>) -> bool) -> Self {
        let mut last = None;
        self.pick(|data, sample| {
            let Some((file, _)) = data.locate(sample) else { return false };
            match last {
                Some((row, verdict)) if row == file.row() => verdict,
                _ => {
                    let verdict = wanted(file.leaf(column).unwrap_or(Leaf::None));
                    last = Some((file.row(), verdict));
                    verdict
                }
            }
        })
    }

    /// Returns the samples with these numbers, in this order; one may come several times.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let first_ten = data.select(&Vec::from_iter(0..10))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchSample`].
    pub fn select(&self, samples: &[usize]) -> Result<Self> {
        let count = self.len();
        let number = |&sample: &usize| match sample < count {
            true => Ok(self.picked.as_ref().map_or(sample, |picked| picked[sample])),
            false => Err(Error::NoSuchSample { sample, count }),
        };
        let picked = samples.iter().map(number).collect::<Result<_>>()?;
        Ok(Self { picked: Some(picked), ..self.clone() })
    }

    /// Splits the samples at random in two: so large a part, and the rest. Both keep the order. Rows and tensors of
    /// one file may come to lie on both sides.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) {
    /// let (train, test) = data.split(0.9, 42);
    /// assert_eq!(train.len() + test.len(), data.len());
    /// # }
    /// ```
    #[must_use]
    pub fn split(&self, fraction: f64, seed: u64) -> (Self, Self) {
        let order = Permutation::new(self.len(), seed, 0);
        let first = (self.len() as f64 * fraction.clamp(0.0, 1.0)).round() as usize;
        let is_first = |sample: usize| order.at(sample) < first;
        (self.pick(|_, sample| is_first(sample)), self.pick(|_, sample| !is_first(sample)))
    }

    fn pick(&self, mut wanted: impl FnMut(&Self, usize) -> bool) -> Self {
        let number = |sample| self.picked.as_ref().map_or(sample, |picked| picked[sample]);
        let picked = (0..self.len()).filter(|&sample| wanted(self, sample)).map(number).collect();
        Self { picked: Some(picked), ..self.clone() }
    }
}
