//! Plain scalars of many files: labels, ids, lengths.

use std::borrow::Cow;
use std::fmt;

use crate::index::{Index, Leaf};
use crate::layout::{ColumnRow, NO_OFFSET, SchemaRow, column};

/// The values of one scalar: one for each file of an index, or of a schema, in order.
///
/// [`Self::as_ints`] and its kin lend the values where all are there and of one type, which those of a data set usually
/// are; [`Self::get`] answers always.
pub struct Column<'i> {
    index: &'i Index,
    name: u32,
    values: Values<'i>,
    /// A bit for each value, set where there is one; `None`: everywhere.
    present: Option<&'i [u8]>,
    length: usize,
}

enum Values<'i> {
    None,
    Bools(&'i [u8]),
    Ints(&'i [i64]),
    Floats(&'i [f64]),
    /// Numbers of texts.
    Strs(&'i [u32]),
    /// With their kinds.
    Mixed(&'i [u8], &'i [u64]),
    /// Put together from several schemas.
    Owned(Vec<Leaf<'i>>),
}

impl<'i> Column<'i> {
    /// Looks at a column of a schema.
    pub(crate) fn of_schema(index: &'i Index, schema: &SchemaRow, row: &ColumnRow) -> Self {
        let length = schema.rows_count as usize;
        let bytes = |start: u64, length: usize| {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            index.column_data().get(start..start.saturating_add(length))
        };
        fn cast<T: bytemuck::Pod>(bytes: Option<&[u8]>) -> Option<&[T]> {
            bytemuck::try_cast_slice(bytes?).ok()
        }
        let values = match row.kind {
            column::BOOL => bytes(row.values, length).map(Values::Bools),
            column::INT => cast(bytes(row.values, 8 * length)).map(Values::Ints),
            column::FLOAT => cast(bytes(row.values, 8 * length)).map(Values::Floats),
            column::STR => cast(bytes(row.values, 4 * length)).map(Values::Strs),
            column::MIXED => cast(bytes(row.values, 8 * length))
                .zip(bytes(row.marks, length))
                .map(|(values, kinds)| Values::Mixed(kinds, values)),
            _ => None,
        };
        let present = match row.marks {
            NO_OFFSET => None,
            marks => bytes(marks, length.div_ceil(8)),
        };
        Self { index, name: row.name, values: values.unwrap_or(Values::None), present, length }
    }

    /// Looks at the column of this name in all files.
    pub(crate) fn of_index(index: &'i Index, name: &str) -> Option<Self> {
        let of_schemas: Vec<_> =
            index.schemas().map(|schema| schema.columns().find(|column| column.name() == name)).collect();
        let id = of_schemas.iter().flatten().next()?.name;
        if of_schemas.len() == 1 {
            return of_schemas.into_iter().flatten().next();
        }
        let value = |file: crate::FileEntry<'i>| {
            of_schemas[file.schema().number()].as_ref().and_then(|column| column.get(file.schema_row()))
        };
        let values: Vec<_> = index.files().map(|file| value(file).unwrap_or(Leaf::None)).collect();
        Some(Self { index, name: id, length: values.len(), values: Values::Owned(values), present: None })
    }

    /// Returns the dotted name.
    pub fn name(&self) -> &'i str {
        self.index.string(self.name)
    }

    /// Returns the number of values, missing ones included.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns a value: [`Leaf::None`] where it is `None` or the file has none; `None` beyond the end.
    pub fn get(&self, row: usize) -> Option<Leaf<'i>> {
        if row >= self.length {
            return None;
        }
        let is_missing = |marks: &[u8]| marks.get(row / 8).is_none_or(|byte| byte & 1 << (row % 8) == 0);
        if !matches!(self.values, Values::Mixed(..)) && self.present.is_some_and(is_missing) {
            return Some(Leaf::None);
        }
        Some(match &self.values {
            Values::None => Leaf::None,
            Values::Bools(values) => Leaf::Bool(values[row] != 0),
            Values::Ints(values) => Leaf::Int(values[row]),
            Values::Floats(values) => Leaf::Float(values[row]),
            Values::Strs(values) => Leaf::Str(self.index.text(values[row])),
            Values::Mixed(kinds, values) => match u32::from(kinds[row]) {
                column::BOOL => Leaf::Bool(values[row] != 0),
                column::INT => Leaf::Int(values[row] as i64),
                column::FLOAT => Leaf::Float(f64::from_bits(values[row])),
                column::STR => Leaf::Str(self.index.text(values[row] as u32)),
                _ => Leaf::None,
            },
            Values::Owned(values) => values[row],
        })
    }

    /// Returns all values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Leaf<'i>> {
        (0..self.length).map(|row| self.get(row).unwrap_or(Leaf::None))
    }

    /// Borrows the values, if all are there and `int`.
    pub fn as_ints(&self) -> Option<&'i [i64]> {
        match self.values {
            Values::Ints(values) if self.present.is_none() => Some(values),
            _ => None,
        }
    }

    /// Borrows the values, if all are there and `float`.
    pub fn as_floats(&self) -> Option<&'i [f64]> {
        match self.values {
            Values::Floats(values) if self.present.is_none() => Some(values),
            _ => None,
        }
    }

    /// Borrows the values, if all are there and `bool`.
    pub fn as_bools(&self) -> Option<&'i [bool]> {
        match self.values {
            Values::Bools(values) if self.present.is_none() => bytemuck::checked::try_cast_slice(values).ok(),
            _ => None,
        }
    }

    /// Borrows the values as numbers of texts, if all are there and `str`: equal strings have equal numbers, which makes
    /// them categories. [`Self::text`] says which string a number means.
    pub fn as_codes(&self) -> Option<&'i [u32]> {
        match self.values {
            Values::Strs(values) if self.present.is_none() => Some(values),
            _ => None,
        }
    }

    /// Returns the string that a number of [`Self::as_codes`] means.
    pub fn text(&self, code: u32) -> &'i str {
        self.index.text(code)
    }

    /// Returns the values, if all are there and `int`; put together from several schemas where need be.
    pub fn to_ints(&self) -> Option<Cow<'i, [i64]>> {
        if let Some(values) = self.as_ints() {
            return Some(Cow::Borrowed(values));
        }
        let ints = self.iter().map(|leaf| match leaf {
            Leaf::Int(value) => Some(value),
            _ => None,
        });
        ints.collect::<Option<Vec<_>>>().map(Cow::Owned)
    }
}

impl fmt::Debug for Column<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column").field("name", &self.name()).field("length", &self.length).finish()
    }
}
