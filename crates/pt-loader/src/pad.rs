//! Samples made equally long.

use std::fmt;
use std::ops::Range;

use pt_format::DType;

use crate::dataset::Field;
use crate::error::{Error, Result};

/// How long samples become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum To {
    /// As long as the longest of the batch.
    #[default]
    Longest,
    /// So long; longer ones are truncated. Of the first size alone: others become as long as the longest of the batch.
    Length(u64),
    /// Along each dimension in which samples differ, so long, or as long as the longest of the batch.
    Each(Lengths),
}

impl To {
    /// Returns how long samples of a field become along a dimension; `None` for as long as the longest of the batch.
    pub fn along(&self, field: &Field, dim: usize) -> Option<u64> {
        match self {
            Self::Longest => None,
            Self::Length(length) => (dim == 0).then_some(*length),
            Self::Each(lengths) => {
                let at = field.ragged_dims.iter().position(|&ragged| ragged == dim)?;
                lengths.as_slice().get(at).copied().flatten()
            }
        }
    }

    /// Refuses more or fewer lengths than there are dimensions in which samples of a ragged field differ.
    pub(crate) fn check(&self, field: &Field) -> Result<()> {
        match self {
            Self::Each(lengths) if lengths.as_slice().len() != field.ragged_dims.len() => {
                Err(Error::OtherDims {
                    tensor: field.name.clone(),
                    lengths: lengths.as_slice().len(),
                    ragged_dims: field.ragged_dims.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// A length for each dimension in which samples differ ([`Field::ragged_dims`]), in the order of those; `None` where they become as
/// long as the longest of the batch.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for (name, shape) in [("a.pt", [1, 3]), ("b.pt", [2, 2])] {
/// #     let elements = [1u8, 2, 3, 4];
/// #     let elements = &elements[..(shape[0] * shape[1]) as usize];
/// #     let object = Object::dict([("image", Tensor::new::<u8>(&shape, elements)?.into())]);
/// #     std::fs::write(folder.path().join(name), write::to_vec(&object)?)?;
/// # }
/// use pt_loader::{Batch, DataSet, Lengths, Pad, Ragged, To};
/// // Images of 1 × 3 and 2 × 2: three rows, and of each row the first two elements.
/// let data = DataSet::open(folder.path())?;
/// let pad = Pad { to: To::Each(Lengths::from([Some(3), Some(2)])), ..Pad::default() };
/// let mut batch = Batch::default();
/// data.gather_into(&[0, 1], Ragged::Pad(pad), &mut batch)?;
/// let image = batch.tensor("image").unwrap();
/// assert_eq!(image.shape(), [2, 3, 2]);
/// assert_eq!(image.as_slice::<u8>()?, [1, 2, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    /// None behind `count`.
    lengths: [Option<u64>; Self::COUNT_MAX],
    count: usize,
}

impl Lengths {
    /// So many there can be.
    pub const COUNT_MAX: usize = 4;

    /// Takes lengths that are known only when the program runs; `None` of more than [`Self::COUNT_MAX`].
    pub fn new(lengths: &[Option<u64>]) -> Option<Self> {
        let mut own = [None; Self::COUNT_MAX];
        own.get_mut(..lengths.len())?.copy_from_slice(lengths);
        Some(Self { lengths: own, count: lengths.len() })
    }

    /// Returns the lengths.
    pub fn as_slice(&self) -> &[Option<u64>] {
        &self.lengths[..self.count]
    }
}

impl<const N: usize> From<[Option<u64>; N]> for Lengths {
    fn from(lengths: [Option<u64>; N]) -> Self {
        const { assert!(N <= Self::COUNT_MAX, "more lengths than Lengths::COUNT_MAX") };
        let mut own = [None; Self::COUNT_MAX];
        own[..N].copy_from_slice(&lengths);
        Self { lengths: own, count: N }
    }
}

impl fmt::Debug for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// What stands where a sample has nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mode {
    /// Zero bytes.
    #[default]
    Zero,
    /// A number, in the dtype of the field; `bool` and numbers of 1 to 8 bytes. Others get zero bytes.
    Constant(f64),
    /// The steps mirrored at the end, the last one not twice: `a b c b a b`. A single step is repeated.
    Reflect,
    /// The step at the end again and again.
    Replicate,
}

/// On which side a sample is padded or truncated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Before its first step.
    Left,
    /// Behind its last step.
    #[default]
    Right,
}

/// How ragged samples are made equally long.
///
/// Of samples that differ in other sizes than the first too ([`Field::ragged_dims`]), each such size becomes the largest of the
/// batch, or what [`To::Each`] says, with the same mode and on the same side.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # use pt_format::write::{self, Object, Tensor};
/// # for (name, shape) in [("a.pt", [1, 3]), ("b.pt", [2, 2])] {
/// #     let elements = [1u8, 2, 3, 4];
/// #     let elements = &elements[..(shape[0] * shape[1]) as usize];
/// #     let object = Object::dict([("image", Tensor::new::<u8>(&shape, elements)?.into())]);
/// #     std::fs::write(folder.path().join(name), write::to_vec(&object)?)?;
/// # }
/// use pt_loader::{Batch, DataSet, Pad, Ragged};
/// // Images of 1 × 3 and 2 × 2.
/// let data = DataSet::open(folder.path())?;
/// let mut batch = Batch::default();
/// data.gather_into(&[0, 1], Ragged::Pad(Pad::default()), &mut batch)?;
/// let image = batch.tensor("image").unwrap();
/// assert_eq!(image.shape(), [2, 2, 3]);
/// assert_eq!(image.as_slice::<u8>()?, [1, 2, 3, 0, 0, 0, 1, 2, 0, 3, 4, 0]);
/// assert_eq!(image.sizes(1), [2, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```
/// use pt_loader::{Mode, Pad, To};
/// let pad = Pad { to: To::Length(512), mode: Mode::Constant(-100.0), ..Pad::default() };
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pad {
    /// How long they become, along the first dimension or along each.
    pub to: To,
    /// What they are padded with.
    pub mode: Mode,
    /// On which side they are padded and truncated.
    pub side: Side,
    /// Whether the batch has a mask that tells steps from padding: [`BatchTensor::mask`](crate::BatchTensor::mask).
    pub mask: bool,
}

impl Pad {
    /// The first step that is kept, of `has` where `count` are kept.
    pub(crate) fn first(self, has: u64, count: u64) -> u64 {
        if self.side == Side::Left { has - count } else { 0 }
    }
}

impl Side {
    /// Where so much stands in `room`.
    pub(crate) fn place(self, room: usize, length: usize) -> Range<usize> {
        if self == Self::Left { room - length..room } else { 0..length }
    }
}

/// Fills what is outside `inside`.
pub(crate) fn fill(out: &mut [u8], inside: Range<usize>, step: usize, dtype: DType, pad: Pad) {
    let steps = inside.len().checked_div(step).unwrap_or(0);
    if steps == 0 || matches!(pad.mode, Mode::Zero | Mode::Constant(_)) {
        let value = if let Mode::Constant(value) = pad.mode { element(dtype, value) } else { [0; 8] };
        let (before, rest) = out.split_at_mut(inside.start);
        for region in [before, &mut rest[inside.len()..]] {
            match value {
                [0, 0, 0, 0, 0, 0, 0, 0] => region.fill(0),
                _ => region
                    .chunks_exact_mut(dtype.itemsize())
                    .for_each(|out| out.copy_from_slice(&value[..dtype.itemsize()])),
            }
        }
        return;
    }
    // The n-th step away from the edge: of which step it is a copy, counted from the edge.
    let source = |n: usize| match pad.mode {
        Mode::Reflect if steps > 1 => {
            let period = 2 * (steps - 1);
            let at = n % period;
            at.min(period - at)
        }
        _ => 0,
    };
    for n in 1..=(out.len() - inside.len()) / step {
        let (from, to) = match pad.side {
            Side::Right => (inside.end - (source(n) + 1) * step, inside.end + (n - 1) * step),
            Side::Left => (inside.start + source(n) * step, inside.start - n * step),
        };
        out.copy_within(from..from + step, to);
    }
}

/// A number as an element of a dtype; zero bytes where it has no such numbers.
fn element(dtype: DType, value: f64) -> [u8; 8] {
    let mut out = [0; 8];
    let mut put = |bytes: &[u8]| out[..bytes.len()].copy_from_slice(bytes);
    match dtype {
        DType::Float64 => put(&value.to_le_bytes()),
        DType::Float32 => put(&(value as f32).to_le_bytes()),
        DType::Float16 => put(&half::f16::from_f64(value).to_le_bytes()),
        DType::BFloat16 => put(&half::bf16::from_f64(value).to_le_bytes()),
        DType::Bool => put(&[u8::from(value != 0.0)]),
        DType::UInt8 => put(&[value as u8]),
        DType::UInt16 => put(&(value as u16).to_le_bytes()),
        DType::UInt32 => put(&(value as u32).to_le_bytes()),
        DType::UInt64 => put(&(value as u64).to_le_bytes()),
        DType::Int8 => put(&(value as i8).to_le_bytes()),
        DType::Int16 => put(&(value as i16).to_le_bytes()),
        DType::Int32 => put(&(value as i32).to_le_bytes()),
        DType::Int64 => put(&(value as i64).to_le_bytes()),
        _ => {}
    }
    out
}
