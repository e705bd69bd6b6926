//! The records of the archive, laid out as `torch.save` of 2.7 and newer does.

use std::io::{Seek, Write};

use zip::CompressionMethod;
use zip::write::{ExtendedFileOptions, FileOptions, ZipWriter};

use crate::write::pickler::{Pickled, Written};
use crate::write::{Error, Options, Result};

/// PyTorch's padding field: "FB", filled with `Z`. Source: `caffe2/serialize/inline_container.cc`.
const PADDING_FIELD: u16 = u16::from_le_bytes(*b"FB");
const PADDING_BYTE: u8 = b'Z';
const LOCAL_HEADER_BYTES: u64 = 30;
const PADDING_HEADER_BYTES: u64 = 4;
const ZIP64_FIELD_BYTES: u64 = 20;
/// Larger records carry their size in a zip64 field.
const LARGE: u64 = u32::MAX as u64;
/// Padding must fit into a 16-bit length beside everything else.
const ALIGNMENT_MAX: u64 = 1 << 15;

pub(crate) fn write<W: Write + Seek>(mut out: W, pickled: &Pickled<'_>, options: &Options) -> Result<W> {
    if !options.alignment.is_power_of_two() || options.alignment > ALIGNMENT_MAX {
        let message = format!("alignment {} is no power of two up to {ALIGNMENT_MAX}", options.alignment);
        return Err(Error::Options(message));
    }
    if options.root.is_empty() || options.root.contains(['/', '\\']) {
        return Err(Error::Options(format!("`{}` cannot name the archive's folder", options.root)));
    }
    let at = out.stream_position()?;
    if at != 0 {
        return Err(Error::Options(format!("the archive must begin at byte 0 of its file, not at {at}")));
    }
    let mut archive = Records { zip: ZipWriter::new(out), at, options };
    archive.add("data.pkl", &Written::Bytes(pickled.pickle.as_slice().into()))?;
    archive.add_text(".format_version", "1")?;
    archive.add_text(".storage_alignment", &options.alignment.to_string())?;
    archive.add_text("byteorder", "little")?;
    for (number, storage) in pickled.storages.iter().enumerate() {
        archive.add(&format!("data/{number}"), storage)?;
    }
    archive.add_text("version", "3\n")?;
    Ok(archive.zip.finish()?)
}

struct Records<'p, W: Write + Seek> {
    zip: ZipWriter<W>,
    /// Where the next local header will be.
    at: u64,
    options: &'p Options,
}

impl<W: Write + Seek> Records<'_, W> {
    fn add_text(&mut self, name: &str, text: &str) -> Result<()> {
        self.add(name, &Written::Bytes(text.as_bytes().into()))
    }

    fn add(&mut self, name: &str, content: &Written<'_>) -> Result<()> {
        let name = format!("{}/{name}", self.options.root);
        let size = content.nbytes();
        let large = size >= LARGE;
        let header_end = self.at
            + LOCAL_HEADER_BYTES
            + name.len() as u64
            + if large { ZIP64_FIELD_BYTES } else { 0 }
            + PADDING_HEADER_BYTES;
        let data_start = header_end.next_multiple_of(self.options.alignment);
        let padding = vec![PADDING_BYTE; (data_start - header_end) as usize];

        let mut options = FileOptions::<ExtendedFileOptions>::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(large);
        options.add_extra_field(PADDING_FIELD, padding, false)?;
        self.zip.start_file(name, options)?;
        match content {
            Written::Bytes(bytes) => self.zip.write_all(bytes)?,
            Written::Zeros(bytes) => {
                let zeros = [0; 64 << 10];
                let mut left = *bytes;
                while left > 0 {
                    let count = left.min(zeros.len() as u64);
                    self.zip.write_all(&zeros[..count as usize])?;
                    left -= count;
                }
            }
        }
        self.at = data_start + size;
        Ok(())
    }
}
