//! Rust types that are PyTorch dtypes.

use half::{bf16, f16};

use crate::dtype::DType;

/// A Rust type whose values lie in memory as those of a PyTorch dtype.
///
/// Complex numbers are pairs `[real, imaginary]`.
///
/// ```
/// use pt_format::{DType, Element};
/// assert_eq!(f32::DTYPE, DType::Float32);
/// assert_eq!(<[f64; 2]>::DTYPE, DType::Complex128);
/// ```
pub trait Element:
    bytemuck::NoUninit + bytemuck::CheckedBitPattern + bytemuck::Zeroable + Send + Sync + 'static
{
    /// The dtype.
    const DTYPE: DType;

    /// Returns the bytes behind elements, to be overwritten; `None` where not every byte pattern is a value (`bool`).
    fn bytes_mut(elements: &mut [Self]) -> Option<&mut [u8]>;
}

macro_rules! elements {
    ($($type:ty = $dtype:ident,)*) => {
        $(impl Element for $type {
            const DTYPE: DType = DType::$dtype;

            fn bytes_mut(elements: &mut [Self]) -> Option<&mut [u8]> {
                Some(bytemuck::cast_slice_mut(elements))
            }
        })*
    };
}

elements! {
    f64 = Float64,
    f32 = Float32,
    f16 = Float16,
    bf16 = BFloat16,
    i64 = Int64,
    i32 = Int32,
    i16 = Int16,
    i8 = Int8,
    u64 = UInt64,
    u32 = UInt32,
    u16 = UInt16,
    u8 = UInt8,
    [f32; 2] = Complex64,
    [f64; 2] = Complex128,
    [f16; 2] = Complex32,
    [bf16; 2] = BComplex32,
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;

    fn bytes_mut(_: &mut [Self]) -> Option<&mut [u8]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Element>() {
        assert_eq!((size_of::<T>(), align_of::<T>()), (T::DTYPE.itemsize(), T::DTYPE.alignment()));
    }

    #[test]
    fn sizes_and_alignments_are_those_of_the_dtypes() {
        check::<f64>();
        check::<f16>();
        check::<bf16>();
        check::<bool>();
        check::<u16>();
        check::<[f32; 2]>();
        check::<[f64; 2]>();
        check::<[f16; 2]>();
    }
}
