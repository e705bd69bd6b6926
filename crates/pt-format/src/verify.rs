//! A file read to its end: are the bytes those that were written?

use crate::checkpoint::Checkpoint;
use crate::container::{Archive, Container, Record, detect};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::source::{Source, read};

/// Stored records are read in pieces of this size.
const PIECE_BYTES: u64 = 1 << 20;

/// What reading a whole file found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Records whose bytes were compared with their CRC.
    pub checked: usize,
    /// Records without a CRC: files of old containers have none, and writers of archives can leave it out.
    pub without_crc: usize,
    /// Bytes that were compared.
    pub bytes: u64,
    /// What is wrong, with the name of the record or tensor.
    pub problems: Vec<(String, Fault)>,
}

/// Reads every record of a file and compares it with the CRC in the directory, and looks for tensors that cannot be read.
///
/// `torch.load` never does: it hands out damaged bytes.
///
/// # Errors
/// As [`Checkpoint::parse`]. What is wrong with single records and tensors is listed instead.
///
/// ```
/// use pt_format::{Limits, verify, write};
/// let mut bytes = write::to_vec(&write::Tensor::new::<u8>(&[4], &[1, 2, 3, 4])?.into())?;
/// assert!(verify(&bytes, &Limits::default())?.problems.is_empty());
/// let at = bytes.windows(4).position(|window| window == [1, 2, 3, 4]).unwrap();
/// bytes[at] = 9;
/// let contents = verify(&bytes, &Limits::default())?;
/// assert_eq!(contents.problems[0].0, "archive/data/0");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn verify<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Contents> {
    let mut contents = Contents::default();
    let checkpoint = Checkpoint::parse(source, limits)?;
    for tensor in checkpoint.tensors() {
        if let Some(fault) = tensor.fault() {
            contents.problems.push((tensor.name().to_owned(), fault.clone()));
        }
    }
    match detect(source)? {
        Container::Zip => contents.check_records(&Archive::parse(source)?, source, limits),
        _ => contents.without_crc = checkpoint.storages().len(),
    }
    Ok(contents)
}

impl Contents {
    fn check_records<S: Source + ?Sized>(&mut self, archive: &Archive<'_, S>, source: &S, limits: &Limits) {
        for (index, entry) in archive.entries().iter().enumerate() {
            if entry.crc32 == 0 {
                // So has an empty record, and there nothing is missing.
                self.without_crc += usize::from(entry.size > 0);
                continue;
            }
            let checked = match entry.is_stored() {
                true => archive.record(index).map_err(fault_of).and_then(|record| {
                    record.verify(source)?;
                    record.check_crc(source)
                }),
                // Decoding compares the CRC.
                false => archive.read_record(index, limits.inflated_bytes).map(|_| ()).map_err(fault_of),
            };
            self.checked += 1;
            self.bytes += entry.size;
            if let Err(fault) = checked {
                let name = String::from_utf8_lossy(archive.name(entry)).into_owned();
                self.problems.push((name, fault));
            }
        }
    }
}

impl Record {
    /// Compares the bytes in the file with the CRC, if they are stored as they are and there is one. Reads all of them.
    ///
    /// # Errors
    /// [`Fault::Crc`], or [`Fault::Unreadable`].
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, write};
    /// let bytes = write::to_vec(&write::Tensor::new::<u8>(&[1], &[7])?.into())?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// let record = checkpoint.storages().next().unwrap().record().unwrap();
    /// record.check_crc(&bytes)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_crc<S: Source + ?Sized>(&self, source: &S) -> std::result::Result<(), Fault> {
        if self.crc32 == 0 || !self.is_stored() {
            return Ok(());
        }
        let mut hasher = crc32fast::Hasher::new();
        let mut done = 0;
        while done < self.bytes {
            let length = PIECE_BYTES.min(self.bytes - done);
            let piece = read(source, self.data_offset.saturating_add(done), length).map_err(fault_of)?;
            hasher.update(&piece);
            done += length;
        }
        match hasher.finalize() {
            found if found == self.crc32 => Ok(()),
            found => Err(Fault::Crc { found, expected: self.crc32 }),
        }
    }
}

fn fault_of(error: Error) -> Fault {
    match error {
        Error::Record { fault, .. } => fault,
        other => Fault::Unreadable { problem: other.to_string() },
    }
}
