//! Element types, as PyTorch names them.

use std::fmt;

/// The type of a tensor's elements.
///
/// Every dtype PyTorch can write has a row here, also those for which Rust has no type.
///
/// ```
/// use pt_format::DType;
/// let dtype = DType::from_name("bfloat16").unwrap();
/// assert_eq!((dtype.itemsize(), dtype.alignment(), dtype.name()), (2, 2, "bfloat16"));
/// assert_eq!(DType::Complex64.alignment(), 4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
#[allow(missing_docs)] // each variant is the dtype of that name
pub enum DType {
    Float64 = 0,
    Float32 = 1,
    Float16 = 2,
    BFloat16 = 3,
    Int64 = 4,
    Int32 = 5,
    Int16 = 6,
    Int8 = 7,
    UInt8 = 8,
    Bool = 9,
    Complex64 = 10,
    Complex128 = 11,
    Complex32 = 12,
    BComplex32 = 13,
    UInt16 = 14,
    UInt32 = 15,
    UInt64 = 16,
    Float8E4M3Fn = 17,
    Float8E5M2 = 18,
    Float8E4M3FnUz = 19,
    Float8E5M2FnUz = 20,
    Float8E8M0Fnu = 21,
    Float4E2M1FnX2 = 22,
    Bits8 = 23,
    Bits16 = 24,
    Bits1x8 = 25,
    Bits2x4 = 26,
    Bits4x2 = 27,
    QInt8 = 28,
    QUInt8 = 29,
    QInt32 = 30,
    QUInt4x2 = 31,
    QUInt2x4 = 32,
}

/// What the elements are, for byte order and for the two halves of a complex number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Complex,
    Float,
    /// Several logical elements in each byte; rows padded to whole bytes.
    Packed(u64),
}

struct Row {
    dtype: DType,
    name: &'static str,
    /// C++ `ScalarType` name; with "Storage" appended, the name of the storage class.
    scalar: &'static str,
    itemsize: usize,
    kind: Kind,
}

const fn row(dtype: DType, name: &'static str, scalar: &'static str, itemsize: usize, kind: Kind) -> Row {
    Row { dtype, name, scalar, itemsize, kind }
}

/// In the order of the discriminants, which index it (a test holds that).
const ROWS: [Row; 33] = [
    row(DType::Float64, "float64", "Double", 8, Kind::Float),
    row(DType::Float32, "float32", "Float", 4, Kind::Float),
    row(DType::Float16, "float16", "Half", 2, Kind::Float),
    row(DType::BFloat16, "bfloat16", "BFloat16", 2, Kind::Float),
    row(DType::Int64, "int64", "Long", 8, Kind::Plain),
    row(DType::Int32, "int32", "Int", 4, Kind::Plain),
    row(DType::Int16, "int16", "Short", 2, Kind::Plain),
    row(DType::Int8, "int8", "Char", 1, Kind::Plain),
    row(DType::UInt8, "uint8", "Byte", 1, Kind::Plain),
    row(DType::Bool, "bool", "Bool", 1, Kind::Plain),
    row(DType::Complex64, "complex64", "ComplexFloat", 8, Kind::Complex),
    row(DType::Complex128, "complex128", "ComplexDouble", 16, Kind::Complex),
    row(DType::Complex32, "complex32", "ComplexHalf", 4, Kind::Complex),
    row(DType::BComplex32, "bcomplex32", "BComplex32", 4, Kind::Complex),
    row(DType::UInt16, "uint16", "UInt16", 2, Kind::Plain),
    row(DType::UInt32, "uint32", "UInt32", 4, Kind::Plain),
    row(DType::UInt64, "uint64", "UInt64", 8, Kind::Plain),
    row(DType::Float8E4M3Fn, "float8_e4m3fn", "Float8_e4m3fn", 1, Kind::Float),
    row(DType::Float8E5M2, "float8_e5m2", "Float8_e5m2", 1, Kind::Float),
    row(DType::Float8E4M3FnUz, "float8_e4m3fnuz", "Float8_e4m3fnuz", 1, Kind::Float),
    row(DType::Float8E5M2FnUz, "float8_e5m2fnuz", "Float8_e5m2fnuz", 1, Kind::Float),
    row(DType::Float8E8M0Fnu, "float8_e8m0fnu", "Float8_e8m0fnu", 1, Kind::Plain),
    row(DType::Float4E2M1FnX2, "float4_e2m1fn_x2", "Float4_e2m1fn_x2", 1, Kind::Plain),
    row(DType::Bits8, "bits8", "Bits8", 1, Kind::Plain),
    row(DType::Bits16, "bits16", "Bits16", 2, Kind::Plain),
    row(DType::Bits1x8, "bits1x8", "Bits1x8", 1, Kind::Plain),
    row(DType::Bits2x4, "bits2x4", "Bits2x4", 1, Kind::Plain),
    row(DType::Bits4x2, "bits4x2", "Bits4x2", 1, Kind::Plain),
    row(DType::QInt8, "qint8", "QInt8", 1, Kind::Plain),
    row(DType::QUInt8, "quint8", "QUInt8", 1, Kind::Plain),
    row(DType::QInt32, "qint32", "QInt32", 4, Kind::Plain),
    row(DType::QUInt4x2, "quint4x2", "QUInt4x2", 1, Kind::Packed(2)),
    row(DType::QUInt2x4, "quint2x4", "QUInt2x4", 1, Kind::Packed(4)),
];

impl DType {
    /// Returns every dtype there is.
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        ROWS.iter().map(|row| row.dtype)
    }

    /// Returns the dtype that PyTorch calls `torch.<name>`, aliases such as `float` and `half` included.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "double" => "float64",
            "float" => "float32",
            "half" => "float16",
            "long" => "int64",
            "int" => "int32",
            "short" => "int16",
            "cfloat" => "complex64",
            "cdouble" => "complex128",
            "chalf" => "complex32",
            name => name,
        };
        ROWS.iter().find(|row| row.name == name).map(|row| row.dtype)
    }

    /// Returns the dtype with this number, the inverse of `dtype as u8`.
    #[inline]
    pub fn from_code(code: u8) -> Option<Self> {
        ROWS.get(usize::from(code)).map(|row| row.dtype)
    }

    /// Returns the dtype of a typed storage class such as `FloatStorage` (the C++ pickler writes
    /// `<ScalarType>Storage` for every dtype). `UntypedStorage` has none.
    pub fn from_storage_class(class: &str) -> Option<Self> {
        // The common ones first: this runs once for every tensor of a file.
        match class {
            "FloatStorage" => return Some(Self::Float32),
            "HalfStorage" => return Some(Self::Float16),
            "BFloat16Storage" => return Some(Self::BFloat16),
            "LongStorage" => return Some(Self::Int64),
            _ => {}
        }
        let scalar = class.strip_suffix("Storage")?;
        ROWS.iter().find(|row| row.scalar == scalar).map(|row| row.dtype)
    }

    /// Returns PyTorch's name without `torch.`, such as `float32`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the name of the typed storage class in Python, such as `FloatStorage`; dtypes without one
    /// are saved over an `UntypedStorage`.
    pub fn storage_class(self) -> Option<String> {
        let typed = matches!(self as u8, 0..=11 | 28..=32);
        typed.then(|| format!("{}Storage", self.row().scalar))
    }

    /// Returns the bytes of one element. Packed dtypes count one byte here; see [`Self::packing`].
    #[inline]
    pub fn itemsize(self) -> usize {
        self.row().itemsize
    }

    /// Returns the bytes one value of the element is made of: half of a complex number, else the element.
    /// Memory must be aligned to it, and byte order swaps it.
    #[inline]
    pub fn alignment(self) -> usize {
        if self.is_complex() { self.itemsize() / 2 } else { self.itemsize() }
    }

    /// Returns whether elements are pairs of a real and an imaginary part.
    #[inline]
    pub fn is_complex(self) -> bool {
        self.row().kind == Kind::Complex
    }

    /// Returns whether elements are floating point numbers.
    pub fn is_float(self) -> bool {
        self.row().kind == Kind::Float
    }

    /// Returns how many logical elements share one byte, for the dtypes whose shape counts logical elements
    /// (`quint4x2`, `quint2x4`). Each row of the last dimension is padded to whole bytes.
    #[inline]
    pub fn packing(self) -> Option<u64> {
        match self.row().kind {
            Kind::Packed(elements) => Some(elements),
            _ => None,
        }
    }

    #[inline]
    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_discriminants_and_names_are_unique() {
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.dtype as usize, index);
            assert_eq!(DType::from_name(row.name), Some(row.dtype));
            assert_eq!(DType::from_storage_class(&format!("{}Storage", row.scalar)), Some(row.dtype));
            assert_eq!(DType::from_code(index as u8), Some(row.dtype));
        }
        assert_eq!(DType::from_code(ROWS.len() as u8), None);
    }

    #[test]
    fn storage_classes_are_those_python_has() {
        assert_eq!(DType::Int64.storage_class().as_deref(), Some("LongStorage"));
        assert_eq!(DType::UInt16.storage_class(), None);
        assert_eq!(DType::from_storage_class("UntypedStorage"), None);
    }
}
