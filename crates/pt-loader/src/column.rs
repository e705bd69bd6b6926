//! Plain scalars of the samples of a batch.

use bytemuck::cast_slice;
use pt_index::Leaf;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Missing,
    Bool,
    Int,
    Float,
    Str,
}

/// A plain scalar of every sample, typed: labels, ids, names.
#[derive(Debug)]
pub struct BatchColumn {
    name: String,
    kinds: Vec<Kind>,
    /// Numbers as they are, floats as their bits, of text where it begins and ends.
    values: Vec<i64>,
    text: String,
}

impl BatchColumn {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), kinds: Vec::new(), values: Vec::new(), text: String::new() }
    }

    pub(crate) fn clear(&mut self, rows: usize) {
        self.kinds.clear();
        self.kinds.resize(rows, Kind::Missing);
        self.values.clear();
        self.values.resize(rows, 0);
        self.text.clear();
    }

    pub(crate) fn set(&mut self, row: usize, leaf: Leaf<'_>) {
        (self.kinds[row], self.values[row]) = match leaf {
            Leaf::Bool(value) => (Kind::Bool, value.into()),
            Leaf::Int(value) => (Kind::Int, value),
            Leaf::Float(value) => (Kind::Float, value.to_bits() as i64),
            Leaf::Str(value) => {
                let start = self.text.len();
                self.text.push_str(value);
                (Kind::Str, (start as i64) << 32 | self.text.len() as i64)
            }
            _ => (Kind::Missing, 0),
        };
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the value of a sample of the batch; [`Leaf::None`] if it has none.
    pub fn get(&self, row: usize) -> Option<Leaf<'_>> {
        let value = *self.values.get(row)?;
        Some(match self.kinds[row] {
            Kind::Missing => Leaf::None,
            Kind::Bool => Leaf::Bool(value != 0),
            Kind::Int => Leaf::Int(value),
            Kind::Float => Leaf::Float(f64::from_bits(value as u64)),
            Kind::Str => Leaf::Str(self.text(row)),
        })
    }

    /// Returns the values of all samples.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Leaf<'_>> {
        (0..self.values.len()).map(|row| self.get(row).unwrap_or(Leaf::None))
    }

    /// Returns the values, if every sample has an `int`.
    pub fn as_ints(&self) -> Option<&[i64]> {
        self.all(Kind::Int).then_some(&self.values)
    }

    /// Returns the values, if every sample has a `float`.
    pub fn as_floats(&self) -> Option<&[f64]> {
        self.all(Kind::Float).then(|| cast_slice(&self.values))
    }

    /// Returns the values, if every sample has a `bool`.
    pub fn to_bools(&self) -> Option<Vec<bool>> {
        self.all(Kind::Bool).then(|| self.values.iter().map(|&value| value != 0).collect())
    }

    /// Returns the values, if every sample has a `str`.
    pub fn to_strs(&self) -> Option<Vec<&str>> {
        self.all(Kind::Str).then(|| (0..self.values.len()).map(|row| self.text(row)).collect())
    }

    fn text(&self, row: usize) -> &str {
        let value = self.values[row];
        &self.text[(value >> 32) as usize..value as u32 as usize]
    }

    fn all(&self, kind: Kind) -> bool {
        self.kinds.iter().all(|&other| other == kind)
    }
}
