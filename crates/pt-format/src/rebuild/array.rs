//! numpy arrays and scalars, which are tensors in all but name.
//!
//! ```text
//! _reconstruct(ndarray, (0,), b"b")   BUILD (1, shape, dtype, is Fortran order, bytes)     protocols up to 4
//! _frombuffer(bytes, dtype, shape, order[, axes])                                          protocol 5
//! scalar(dtype, bytes)
//! dtype("f4", False, True)            BUILD (3, byte order, …)
//! ```
//!
//! Arrays of what no tensor can hold stay the objects they are: Python objects, text, dates, records, long doubles.
//!
//! Source: `numpy/_core/src/multiarray/methods.c` (`array_setstate`), `descriptor.c` (`arraydescr_reduce`),
//! `numpy/_core/numeric.py` (`_frombuffer`).

use crate::checkpoint::ByteOrder;
use crate::dtype::DType;
use crate::fault::Fault;
use crate::geometry;
use crate::pickle::{Known, Node, NodeId, Raw, Tree, Written};
use crate::rebuild::tensor::{Call, Parsed, Rebuilder};
use crate::tensor::Flags;

/// An array as its calls describe it.
pub(crate) struct Array {
    dtype: DType,
    byte_order: ByteOrder,
    /// `None` for a scalar.
    shape: Option<Raw>,
    order: Order,
    content: Written,
    /// A subclass of `numpy.ndarray`.
    class: Option<NodeId>,
}

/// How the elements follow each other.
#[derive(Clone, Copy)]
enum Order {
    C,
    Fortran,
    /// In C order before the dimensions were exchanged in this way.
    Axes(Raw),
}

impl Array {
    /// Returns the array that a call makes, `None` when it makes none or one of what no tensor can hold.
    pub(crate) fn of(tree: &Tree<'_>, call: &Call<'_>) -> Option<Self> {
        let order = |order: Raw| match order {
            Raw::Bool(fortran) => Some(if fortran { Order::Fortran } else { Order::C }),
            Raw::Int(fortran) => Some(if fortran != 0 { Order::Fortran } else { Order::C }),
            order => match tree.str_bytes(order)? {
                b"C" => Some(Order::C),
                b"F" => Some(Order::Fortran),
                _ => None,
            },
        };
        let (shape, dtype, order, content, class) = match (call.known, call.args) {
            (Known::ArrayScalar, &[dtype, content]) => (None, dtype, Order::C, content, None),
            (Known::ArrayFromBuffer, &[content, dtype, shape, order_]) => {
                (Some(shape), dtype, order(order_)?, content, None)
            }
            (Known::ArrayFromBuffer, &[content, dtype, shape, order_, axes]) => {
                let order = order(order_).unwrap_or(Order::Axes(axes));
                (Some(shape), dtype, order, content, None)
            }
            (Known::ArrayReconstruct, &[class, ..]) => {
                let mut state = tree.elements(call.state?)?;
                // The oldest states have no version in front.
                let first = state.next()?;
                let shape = if let Raw::Int(_) = first { state.next()? } else { first };
                let (dtype, fortran, content) = (state.next()?, state.next()?, state.next()?);
                if state.next().is_some() {
                    return None;
                }
                let class = class.node().filter(|&class| tree.known(class) != Known::ArrayClass);
                (Some(shape), dtype, order(fortran)?, content, class)
            }
            _ => return None,
        };
        let (dtype, byte_order) = array_dtype(tree, dtype)?;
        Some(Self { dtype, byte_order, shape, order, content: Written::of(tree, content)?, class })
    }
}

impl Rebuilder<'_, '_, '_> {
    /// Fills in what an array says.
    pub(crate) fn array(&mut self, parsed: &mut Parsed, array: &Array, node: NodeId) -> Result<(), Fault> {
        parsed.dtype = Some(array.dtype);
        parsed.class = array.class;
        parsed.flags.set(Flags::NUMPY, true);
        let swapped = array.byte_order != self.byte_order && array.dtype.alignment() > 1;
        parsed.flags.set(Flags::SWAPPED, swapped);
        self.array_dims(parsed, array)?;
        let shape = &self.dims[parsed.dims_start..][..parsed.rank.unwrap_or(0).into()];
        let overflow = Fault::Overflow { what: "the number of bytes" };
        let numel = geometry::numel(shape).ok_or_else(|| overflow.clone())?;
        let bytes = numel.checked_mul(array.dtype.itemsize() as u64).ok_or(overflow)?;
        let record = array.content.record(self.tree, bytes);
        parsed.storage = Some(self.storages.buffer(node, record, bytes, numel));
        Ok(())
    }

    fn array_dims(&mut self, parsed: &mut Parsed, array: &Array) -> Result<(), Fault> {
        let rank = match array.shape {
            None => 0,
            Some(shape) => match self.counts(shape, "shape") {
                Ok(rank) => rank,
                Err(fault) => {
                    self.dims.truncate(parsed.dims_start);
                    return Err(fault);
                }
            },
        };
        let shape = self.dims[parsed.dims_start..].to_vec();
        match array.order {
            Order::C => self.dims.extend(geometry::contiguous_stride(&shape)),
            Order::Fortran => {
                let backwards: Vec<u64> = shape.iter().rev().copied().collect();
                self.dims.extend(geometry::contiguous_stride(&backwards).into_iter().rev());
            }
            Order::Axes(axes) => {
                let stride = geometry::contiguous_stride(&shape);
                let axes = permutation(self.tree, axes, shape.len()).ok_or(Fault::Malformed {
                    what: "the order of its dimensions",
                    problem: "no permutation of them",
                });
                let axes = axes.inspect_err(|_| self.dims.truncate(parsed.dims_start))?;
                self.dims.truncate(parsed.dims_start);
                self.dims.extend(axes.iter().map(|&axis| shape[axis]));
                self.dims.extend(axes.iter().map(|&axis| stride[axis]));
            }
        }
        parsed.rank = Some(rank);
        Ok(())
    }
}

fn permutation(tree: &Tree<'_>, axes: Raw, rank: usize) -> Option<Vec<usize>> {
    let mut seen = vec![false; rank];
    let axes: Option<Vec<usize>> = tree
        .elements(axes)?
        .take(rank + 1)
        .map(|axis| {
            let Raw::Int(axis) = axis else { return None };
            let axis = usize::try_from(axis).ok()?;
            (!std::mem::replace(seen.get_mut(axis)?, true)).then_some(axis)
        })
        .collect();
    axes.filter(|axes| axes.len() == rank)
}

/// Returns the element type that a `numpy.dtype` stands for, if a tensor can have it.
fn array_dtype(tree: &Tree<'_>, dtype: Raw) -> Option<(DType, ByteOrder)> {
    let Node::Object { callable, args, extra } = tree.node(dtype.node()?) else { return None };
    if tree.known(callable) != Known::ArrayDType {
        return None;
    }
    let name = *tree.args(args).first()?;
    let dtype = match tree.str_bytes(name) {
        Some(name) => numpy_dtype(name)?,
        // Types of the package ml_dtypes are given by their class.
        None => {
            let name = tree.global_name(name.node()?)?;
            DType::from_name(name.strip_prefix("ml_dtypes.")?)?
        }
    };
    let mut byte_order = ByteOrder::Little;
    if let Some(state) = tree.sequence(tree.extra(extra).states).last() {
        let state: Vec<Raw> = tree.elements(state)?.take(5).collect();
        // A subarray or fields make it something else.
        let plain = |at: usize| matches!(state.get(at), Some(Raw::None));
        if !plain(2) || !plain(3) || !plain(4) {
            return None;
        }
        byte_order = match tree.str_bytes(*state.get(1)?)? {
            b">" => ByteOrder::Big,
            _ => ByteOrder::Little,
        };
    }
    Some((dtype, byte_order))
}

/// Kind and bytes, as `numpy.dtype.str` has them.
fn numpy_dtype(name: &[u8]) -> Option<DType> {
    Some(match name {
        b"f8" => DType::Float64,
        b"f4" => DType::Float32,
        b"f2" => DType::Float16,
        b"i8" => DType::Int64,
        b"i4" => DType::Int32,
        b"i2" => DType::Int16,
        b"i1" => DType::Int8,
        b"u8" => DType::UInt64,
        b"u4" => DType::UInt32,
        b"u2" => DType::UInt16,
        b"u1" => DType::UInt8,
        b"b1" => DType::Bool,
        b"c8" => DType::Complex64,
        b"c16" => DType::Complex128,
        _ => return None,
    })
}
