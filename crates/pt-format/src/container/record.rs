//! One record of an archive, once its place is known: what an index keeps to find its bytes again.

use std::io::Read;

use xxhash_rust::xxh3::xxh3_64;
use zip::read::{ZipReadOptions, read_zipfile_from_stream_with_options};

use crate::container::zip::{LOCAL_HEADER_BYTES, METHOD_STORED, local_data_start};
use crate::fault::Fault;
use crate::pickle::Encoding;
use crate::source::Source;

/// Where the bytes of a storage lie, and how to be sure of it.
///
/// ```
/// use pt_format::{Checkpoint, Limits, write};
/// let object = write::Object::from(write::Tensor::new::<i32>(&[2], &[5, 6])?);
/// let bytes = write::to_vec(&object)?;
/// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
/// let record = checkpoint.tensors().next().unwrap().storage().unwrap().record().unwrap();
/// record.verify(&bytes)?;
/// assert_eq!(bytes[record.data_offset as usize..][..4], 5i32.to_le_bytes());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Position of the zip local header; `None` in containers without one.
    pub header_offset: Option<u64>,
    /// Position of the first byte, compressed or not.
    pub data_offset: u64,
    /// Bytes in the file.
    pub packed_bytes: u64,
    /// Bytes once decoded.
    pub bytes: u64,
    /// Compression method: 0 stored, 8 deflated. Numbers from 0xF000 on, which no zip has, are ways in which a pickle
    /// writes bytes as text or numbers; [`Self::decode`] knows them.
    pub method: u16,
    /// CRC-32 of the decoded bytes; 0 may mean "not computed".
    pub crc32: u32,
    /// Low half of XXH3-64 of the record's full name.
    pub name_hash: u32,
}

/// Hash of a record name, as [`Record::name_hash`] holds it.
pub(crate) fn name_hash(name: &[u8]) -> u32 {
    xxh3_64(name) as u32
}

impl Record {
    /// Bytes that stand in the file as they are, without a header of their own.
    pub(crate) fn plain(data_offset: u64, bytes: u64) -> Self {
        Self {
            header_offset: None,
            data_offset,
            packed_bytes: bytes,
            bytes,
            method: METHOD_STORED,
            crc32: 0,
            name_hash: 0,
        }
    }

    /// Bytes that a pickle holds as something else.
    pub(crate) fn written(data_offset: u64, packed_bytes: u64, bytes: u64, method: u16) -> Self {
        Self { packed_bytes, method, ..Self::plain(data_offset, bytes) }
    }

    /// The record of an archive that begins at this position of the file.
    pub(crate) fn moved(self, base: u64) -> Self {
        let header_offset = self.header_offset.map(|offset| offset.saturating_add(base));
        Self { header_offset, data_offset: self.data_offset.saturating_add(base), ..self }
    }

    /// Returns whether the bytes lie in the file as they are.
    #[inline]
    pub fn is_stored(&self) -> bool {
        self.method == METHOD_STORED
    }

    /// Returns whether a pickle holds the bytes as text or numbers: not compressed, but not as they are either.
    pub fn is_written_as_text(&self) -> bool {
        Encoding::from_method(self.method).is_some()
    }

    /// Checks the local header against what the directory said: its signature, its name, where the data starts.
    /// One positioned read; done when a record is borrowed for the first time.
    ///
    /// # Errors
    /// The [`Fault`] found, [`Fault::LocalHeader`] too when the header cannot be read.
    pub fn verify<S: Source + ?Sized>(&self, source: &S) -> Result<(), Fault> {
        let Some(offset) = self.header_offset else { return Ok(()) };
        let broken = Fault::LocalHeader { offset };
        let header_bytes = self.data_offset.checked_sub(offset).ok_or(broken.clone())?;
        // Fixed part, name and extra field, the last two of at most 64 KiB each.
        if header_bytes < LOCAL_HEADER_BYTES || header_bytes > LOCAL_HEADER_BYTES + 2 * u64::from(u16::MAX) {
            return Err(broken);
        }
        let header = source.read_at(offset, header_bytes as usize).map_err(|_| broken.clone())?;
        let name_bytes = usize::from(u16::from_le_bytes([header[26], header[27]]));
        let name = header[LOCAL_HEADER_BYTES as usize..].get(..name_bytes).ok_or(broken)?;
        if name_hash(name) != self.name_hash {
            return Err(Fault::LocalName { offset });
        }
        match local_data_start(&header, offset, name)? {
            found if found == self.data_offset => Ok(()),
            found => Err(Fault::DataStart { found, expected: self.data_offset }),
        }
    }

    /// Decodes the record, given its bytes from the local header on (from `data_offset` where it has none): the `zip`
    /// crate's part, but for what a pickle writes as text.
    ///
    /// The size is the directory's promise: output beyond it is an error, as is a record that ends early or whose CRC
    /// differs (a CRC of 0 means "not computed", as PyTorch writes it on request).
    ///
    /// # Errors
    /// [`Fault::Inflate`], [`Fault::Written`], [`Fault::RecordLength`], or [`Fault::TooLargeInflated`] beyond `bytes_max`.
    pub fn decode(&self, from_header: &[u8], bytes_max: u64) -> Result<Vec<u8>, Fault> {
        if self.bytes > bytes_max {
            return Err(Fault::TooLargeInflated { size: self.bytes, limit: bytes_max });
        }
        if let Some(encoding) = Encoding::from_method(self.method) {
            let bytes = encoding.decode(from_header).ok_or(Fault::Written { offset: self.data_offset })?;
            return match bytes.len() as u64 == self.bytes {
                true => Ok(bytes),
                false => Err(Fault::RecordLength { record: bytes.len() as u64, expected: self.bytes }),
            };
        }
        let failed =
            |problem: String| Fault::Inflate { offset: self.data_offset, method: self.method, problem };
        let options = ZipReadOptions::new()
            .override_compressed_size(self.packed_bytes)
            .override_uncompressed_size(self.bytes)
            .override_crc(self.crc32)
            .ignore_crc32(self.crc32 == 0);
        let mut stream = from_header;
        let record = read_zipfile_from_stream_with_options(&mut stream, options)
            .map_err(|error| failed(error.to_string()))?
            .ok_or_else(|| failed("no local header".into()))?;

        // Grows with what really comes out, so a directory that promises gigabytes allocates nothing by itself.
        let mut bytes = Vec::new();
        let mut limited = record.take(self.bytes.saturating_add(1));
        limited.read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 != self.bytes {
            return Err(Fault::RecordLength { record: bytes.len() as u64, expected: self.bytes });
        }
        Ok(bytes)
    }
}
