//! A loop over a folder of samples as fast as it goes: `cargo run --release --example loader -- FOLDER [BATCH_SIZE]`.

use std::time::Instant;

use pt_loader::{DataSet, Loader, OnError, Pad, Prefetch, Ragged};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: loader FOLDER [BATCH_SIZE]")?;
    let batch_size = arguments.next().map_or(Ok(256), |size| size.parse())?;

    let data = DataSet::open(&folder)?;
    for field in data.fields() {
        println!(
            "{}: {} {:?}{}",
            field.name,
            field.dtype,
            field.shape,
            if field.is_ragged { ", ragged" } else { "" }
        );
    }
    let loader = Loader::new(&data, batch_size).shuffle(42).ragged(Ragged::Pad(Pad::default()));
    for epoch in 0..3 {
        let start = Instant::now();
        let (mut samples, mut bytes) = (0, 0);
        let mut batches = Prefetch::new(loader.epoch(epoch), 4, OnError::Skip);
        while let Some(batch) = batches.next() {
            let batch = batch?;
            samples += batch.len();
            bytes += batch.tensors().map(|tensor| tensor.as_bytes().len()).sum::<usize>();
            batches.recycle(batch);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "epoch {epoch}: {samples} samples, {} skipped, {:.0} samples/s, {:.0} MB/s",
            batches.skipped(),
            samples as f64 / seconds,
            bytes as f64 / seconds / 1e6
        );
    }
    Ok(())
}
