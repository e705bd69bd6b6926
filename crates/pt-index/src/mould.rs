//! Files taken down by comparing their heads with one taken down before.

use std::sync::Arc;

use pt_format::{Checkpoint, Limits, Scalar, Source, Template};

use crate::freshness::Stamp;
use crate::layout::{StorageRow, column};
use crate::record::{Cell, SharedRecord};
use crate::structure::Structure;

/// Kept at a time: a number in a pickle has one, two or four bytes, so files with a few labels come in a few forms.
const MOULDS_MAX: usize = 8;
/// Making a mould costs about what so many files save that fit it.
const PRICE: u32 = 3;
/// What may be spent on moulds before any file has fitted one, and saved up at most.
const CREDIT_FIRST: u32 = MOULDS_MAX as u32 * PRICE;
const CREDIT_MAX: u32 = 2 * CREDIT_FIRST;
/// One more is made after so many files that were parsed: others may have followed that are like each other.
const FILES_A_TRY: u32 = 256;

/// A file taken down, and the template of its head.
struct Mould {
    template: Template,
    structure: Arc<Structure>,
    /// [`Structure::numbers`]: those of the storages first.
    numbers: Vec<u64>,
    cells: Vec<Cell>,
    text: String,
}

/// Moulds of the files that a thread took down lately, the one that fitted last in front.
pub(crate) struct Moulds {
    few: Vec<Mould>,
    /// What may be spent: where no mould ever fits, hardly any are made.
    credit: u32,
    parsed: u32,
}

impl Default for Moulds {
    fn default() -> Self {
        Self { few: Vec::new(), credit: CREDIT_FIRST, parsed: 0 }
    }
}

impl Moulds {
    pub(crate) fn is_empty(&self) -> bool {
        self.few.is_empty()
    }

    /// Takes down a file, if it is like one before.
    pub(crate) fn fill(&mut self, stamp: Stamp, source: &dyn Source) -> Option<SharedRecord> {
        let fit = |(at, mould): (usize, &Mould)| Some((at, mould.fill(stamp, source)?));
        let (at, record) = self.few.iter().enumerate().find_map(fit)?;
        self.few[..=at].rotate_right(1);
        self.credit = (self.credit + 1).min(CREDIT_MAX);
        Some(record)
    }

    /// Takes note of a file that was parsed and has the structure of another.
    pub(crate) fn add(
        &mut self,
        source: &dyn Source,
        checkpoint: &Checkpoint<'_>,
        record: &SharedRecord,
        limits: &Limits,
    ) {
        self.parsed = self.parsed.wrapping_add(1);
        if self.parsed.is_multiple_of(FILES_A_TRY) {
            self.credit = self.credit.max(PRICE);
        }
        let Some(credit) = self.credit.checked_sub(PRICE) else { return };
        self.credit = credit;
        if let Some(mould) = Mould::new(source, checkpoint, record, limits) {
            self.few.truncate(MOULDS_MAX - 1);
            self.few.insert(0, mould);
        }
    }
}

impl Mould {
    fn new(
        source: &dyn Source,
        checkpoint: &Checkpoint<'_>,
        record: &SharedRecord,
        limits: &Limits,
    ) -> Option<Self> {
        let template = Template::of(source, checkpoint, limits)?;
        let mould = Self {
            template,
            structure: Arc::clone(&record.structure),
            numbers: record.numbers.clone(),
            cells: record.cells.clone(),
            text: record.text.clone(),
        };
        // Scalars of a structure that is left to the pickle have no cells.
        let own = mould.fill(record.stamp, source)?;
        let is_same = own.fingerprint == record.fingerprint
            && own.numbers == record.numbers
            && own.cells == record.cells
            && own.text == record.text;
        is_same.then_some(mould)
    }

    fn fill(&self, stamp: Stamp, source: &dyn Source) -> Option<SharedRecord> {
        let alike = self.template.compare(source)?;
        let mut numbers = self.numbers.clone();
        for (row, record) in numbers.chunks_exact_mut(StorageRow::NUMBERS as usize).zip(alike.records()) {
            // As in `Structure::numbers`; the others are those of all such files.
            if let [.., crc32, name_hash] = row {
                (*crc32, *name_hash) = (record.crc32.into(), record.name_hash.into());
            }
        }
        let (mut cells, mut text) = (self.cells.clone(), self.text.clone());
        for (leaf, scalar) in alike.scalars() {
            let cell = cells.get_mut(leaf)?;
            match (scalar, cell.kind) {
                (Scalar::Int(value), column::INT) => cell.bits = value as u64,
                (Scalar::Float(value), column::FLOAT) => cell.bits = value.to_bits(),
                (Scalar::Str(value), column::STR) if cell.text(&text).len() == value.len() => {
                    text.replace_range(cell.text_range(), value);
                }
                _ => return None,
            }
        }
        Some(SharedRecord {
            stamp,
            fingerprint: alike.fingerprint().digest,
            structure: Arc::clone(&self.structure),
            numbers,
            cells,
            text,
            is_like_before: true,
        })
    }
}

#[cfg(test)]
mod tests {
    use pt_format::write::{self, Object, Tensor};

    use super::*;
    use crate::record::{Record, Scratch};

    fn sample(y: i64, weight: f64, id: &str) -> Vec<u8> {
        let values = [y as i32, 1];
        let x = Tensor::new::<i32>(&[2], &values).unwrap();
        let labels = Object::list([Object::from(y), Object::from(weight)]);
        write::to_vec(&Object::dict([("x", x.into()), ("labels", labels), ("id", Object::from(id))])).unwrap()
    }

    fn parsed(bytes: &Vec<u8>, scratch: &mut Scratch, moulds: Option<&mut Moulds>) -> SharedRecord {
        let limits = Limits::default();
        let checkpoint = Checkpoint::parse(bytes, &limits).unwrap();
        let record = Record::new(Stamp::default(), &checkpoint, scratch).unwrap().shared(scratch);
        if let Some(moulds) = moulds {
            moulds.add(bytes, &checkpoint, &record, &limits);
        }
        record
    }

    #[test]
    fn what_fits_is_taken_down_as_if_it_were_parsed() {
        let (mut moulds, mut scratch) = (Moulds::default(), Scratch::default());
        for y in [1, 300, 70_000] {
            parsed(&sample(y, 0.5, "one"), &mut scratch, Some(&mut moulds));
        }
        for (y, weight, id) in
            [(7, -1.0, "one"), (65_535, f64::NAN, "one"), (-2, 0.0, "two"), (0, 1e300, "é!")]
        {
            let bytes = sample(y, weight, id);
            let filled = moulds.fill(Stamp::default(), &bytes).unwrap();
            let parsed = parsed(&bytes, &mut scratch, None);
            assert!(filled.structure.same(&parsed.structure));
            assert_eq!((filled.fingerprint, &filled.numbers), (parsed.fingerprint, &parsed.numbers));
            assert_eq!((&filled.cells, &filled.text), (&parsed.cells, &parsed.text));
        }
        assert!(moulds.fill(Stamp::default(), &sample(7, 1.0, "four")).is_none(), "text of another length");
    }

    #[test]
    fn where_none_fits_hardly_any_are_made() {
        let (mut moulds, mut scratch) = (Moulds::default(), Scratch::default());
        let mut made = 0;
        // Each text is longer than the one before.
        let files = if cfg!(miri) { 300 } else { 2000 };
        for number in 0..files {
            let id = "x".repeat(number as usize);
            let bytes = sample(number, 0.5, &id);
            assert!(moulds.fill(Stamp::default(), &bytes).is_none());
            parsed(&bytes, &mut scratch, Some(&mut moulds));
            made += u32::from(moulds.few.first().is_some_and(|mould| mould.text == id));
        }
        assert_eq!((made, moulds.few.len()), (MOULDS_MAX as u32 + files as u32 / FILES_A_TRY, MOULDS_MAX));
    }
}
