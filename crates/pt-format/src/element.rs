//! Rust types that are PyTorch dtypes.
//!
//! Numbers are Rust's own and those of the crate `half`. What has no arithmetic in Rust (8-bit floats, quantized numbers,
//! bits) is a named type around the bits, so that one is never taken for the other. Complex numbers are [`Complex`], or
//! `num_complex::Complex` with the feature `num-complex`. `quint4x2` and `quint2x4` share a byte between elements and so
//! are no Rust type; nor is an element of `float4_e2m1fn_x2`, but the byte that holds two of them is.

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

use crate::dtype::DType;

/// A Rust type whose values lie in memory as those of a PyTorch dtype.
///
/// ```
/// use pt_format::{DType, Element, element::Complex};
/// assert_eq!(f32::DTYPE, DType::Float32);
/// assert_eq!(Complex::<f64>::DTYPE, DType::Complex128);
/// ```
pub trait Element:
    bytemuck::NoUninit + bytemuck::CheckedBitPattern + bytemuck::Zeroable + Send + Sync + 'static
{
    /// The dtype.
    const DTYPE: DType;

    /// Returns the bytes behind elements, to be overwritten; `None` where not every byte pattern is a value (`bool`).
    fn bytes_mut(elements: &mut [Self]) -> Option<&mut [u8]>;
}

/// A complex number: real part, then imaginary part.
///
/// ```
/// use pt_format::element::Complex;
/// let number = Complex::new(3.0f32, -4.0);
/// assert_eq!((number.re(), number.im()), (3.0, -4.0));
/// assert_eq!(<[f32; 2]>::from(number), [3.0, -4.0]);
/// ```
// An array inside, because bytes are not cast to generic structs of two fields without unsafe code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Complex<T>([T; 2]);

impl<T: Copy> Complex<T> {
    /// Makes a number of its parts.
    pub const fn new(re: T, im: T) -> Self {
        Self([re, im])
    }

    /// Returns the real part.
    pub const fn re(self) -> T {
        self.0[0]
    }

    /// Returns the imaginary part.
    pub const fn im(self) -> T {
        self.0[1]
    }
}

impl<T> From<[T; 2]> for Complex<T> {
    fn from(parts: [T; 2]) -> Self {
        Self(parts)
    }
}

impl<T> From<Complex<T>> for [T; 2] {
    fn from(number: Complex<T>) -> Self {
        number.0
    }
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

/// Types that are the bits of a dtype and nothing else, each named as the dtype.
macro_rules! bits {
    ($($(#[doc = $doc:literal])+ $name:ident($bits:ty),)*) => {
        $(
            $(#[doc = $doc])+
            ///
            /// ```
            #[doc = concat!("use pt_format::{DType, Element, element::", stringify!($name), "};")]
            #[doc = concat!("assert_eq!(", stringify!($name), "::DTYPE, DType::", stringify!($name), ");")]
            #[doc = concat!("assert_eq!(", stringify!($name), "(7).0, 7);")]
            /// ```
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
            #[repr(transparent)]
            pub struct $name(pub $bits);
        )*

        elements! { $($name = $name,)* }
    };
}

bits! {
    /// An 8-bit float: sign, 4 bits of exponent (bias 7), 3 of fraction; no infinities.
    Float8E4M3Fn(u8),
    /// An 8-bit float: sign, 5 bits of exponent (bias 15), 2 of fraction.
    Float8E5M2(u8),
    /// An 8-bit float as [`Float8E4M3Fn`], with a bias of 8, no negative zero, and 0x80 for not-a-number.
    Float8E4M3FnUz(u8),
    /// An 8-bit float as [`Float8E5M2`], with a bias of 16, no infinities, no negative zero, and 0x80 for not-a-number.
    Float8E5M2FnUz(u8),
    /// An 8-bit power of two, 2^(byte - 127); 0xFF is not-a-number.
    Float8E8M0Fnu(u8),
    /// Two 4-bit floats. Shapes of this dtype count bytes.
    Float4E2M1FnX2(u8),
    /// A quantized number: `(value - zero_point) * scale`, with the tensor's quantizer.
    QInt8(i8),
    /// A quantized number: `(value - zero_point) * scale`, with the tensor's quantizer.
    QUInt8(u8),
    /// A quantized number: `(value - zero_point) * scale`, with the tensor's quantizer.
    QInt32(i32),
    /// Eight bits of no meaning to PyTorch.
    Bits8(u8),
    /// Sixteen bits of no meaning to PyTorch.
    Bits16(u16),
    /// Eight bits, one by one. Shapes of this dtype count bytes.
    Bits1x8(u8),
    /// Four times two bits. Shapes of this dtype count bytes.
    Bits2x4(u8),
    /// Twice four bits. Shapes of this dtype count bytes.
    Bits4x2(u8),
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
    Complex<f32> = Complex64,
    Complex<f64> = Complex128,
    Complex<f16> = Complex32,
    Complex<bf16> = BComplex32,
}

#[cfg(feature = "num-complex")]
elements! {
    num_complex::Complex<f32> = Complex64,
    num_complex::Complex<f64> = Complex128,
    num_complex::Complex<f16> = Complex32,
    num_complex::Complex<bf16> = BComplex32,
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

    fn check<T: Element>() -> DType {
        assert_eq!((size_of::<T>(), align_of::<T>()), (T::DTYPE.itemsize(), T::DTYPE.alignment()));
        T::DTYPE
    }

    macro_rules! check_all {
        ($($type:ty),*) => { vec![$(check::<$type>()),*] };
    }

    #[test]
    fn every_dtype_whose_elements_have_bytes_of_their_own_is_one_type_of_its_size_and_alignment() {
        let mut types = check_all![
            f64,
            f32,
            f16,
            bf16,
            i64,
            i32,
            i16,
            i8,
            u64,
            u32,
            u16,
            u8,
            bool,
            Complex<f32>,
            Complex<f64>,
            Complex<f16>,
            Complex<bf16>,
            Float8E4M3Fn,
            Float8E5M2,
            Float8E4M3FnUz,
            Float8E5M2FnUz,
            Float8E8M0Fnu,
            Float4E2M1FnX2,
            QInt8,
            QUInt8,
            QInt32,
            Bits8,
            Bits16,
            Bits1x8,
            Bits2x4,
            Bits4x2
        ];
        types.sort();
        assert_eq!(types, DType::all().filter(|dtype| dtype.packing().is_none()).collect::<Vec<_>>());
    }

    #[cfg(feature = "num-complex")]
    #[test]
    fn numbers_of_num_complex_lie_as_ours() {
        check_all![num_complex::Complex<f32>, num_complex::Complex<f64>, num_complex::Complex<f16>];
        let theirs = num_complex::Complex::new(1.0f32, 2.0);
        assert_eq!(bytemuck::cast::<_, Complex<f32>>(theirs), Complex::new(1.0, 2.0));
    }
}
