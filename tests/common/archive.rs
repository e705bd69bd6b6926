//! Archives byte for byte as `torch.save` lays them out, made by hand: a second writer that shares nothing with ours.

const ALIGNMENT: usize = 64;

/// Returns an archive of these records under a top folder: padded by an "FB" field, sizes and CRC in the descriptor
/// alone, and a zip64 end record with its locator although no field needs it.
pub fn torch_like(root: &str, records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for (name, data) in records {
        let name = format!("{root}/{name}");
        let header_offset = out.len();
        let data_start = (header_offset + 30 + name.len() + 4).next_multiple_of(ALIGNMENT);
        let padding = data_start - (header_offset + 30 + name.len() + 4);
        let (crc, size) = (crc32(data), data.len() as u32);
        // Empty records have no descriptor.
        let flags: u16 = if data.is_empty() { 0x0800 } else { 0x0808 };

        out.extend(b"PK\x03\x04\0\0");
        out.extend(flags.to_le_bytes());
        out.extend([0; 18]); // method, time, date, and CRC and sizes, which only the descriptor holds
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((padding as u16 + 4).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(b"FB");
        out.extend((padding as u16).to_le_bytes());
        out.extend(vec![b'Z'; padding]);
        out.extend(*data);
        if !data.is_empty() {
            out.extend(b"PK\x07\x08");
            [crc, size, size].iter().for_each(|field| out.extend(field.to_le_bytes()));
        }

        directory.extend(b"PK\x01\x02\0\0\0\0");
        directory.extend(flags.to_le_bytes());
        directory.extend([0; 6]); // method, time, date
        [crc, size, size].iter().for_each(|field| directory.extend(field.to_le_bytes()));
        directory.extend((name.len() as u16).to_le_bytes());
        directory.extend([0; 12]); // extra, comment, disk, attributes
        directory.extend((header_offset as u32).to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, directory_offset) = (records.len() as u64, out.len() as u64);
    out.extend(&directory);

    let end64_offset = out.len() as u64;
    out.extend(b"PK\x06\x06");
    out.extend(44u64.to_le_bytes());
    out.extend([798u16, 45].iter().flat_map(|version| version.to_le_bytes()));
    out.extend([0; 8]); // disks
    [count, count, directory.len() as u64, directory_offset]
        .iter()
        .for_each(|field| out.extend(field.to_le_bytes()));
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(end64_offset.to_le_bytes());
    out.extend(1u32.to_le_bytes());

    let narrow = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
    out.extend(b"PK\x05\x06\0\0\0\0");
    [narrow(count), narrow(count)].iter().for_each(|field| out.extend(field.to_le_bytes()));
    [directory.len() as u32, directory_offset as u32]
        .iter()
        .for_each(|field| out.extend(field.to_le_bytes()));
    out.extend([0; 2]); // comment
    out
}

fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 != 0 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
    !data.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}
