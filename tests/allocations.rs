//! Gathering into a used batch allocates as often for many samples as for few.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use pt_format::DType;
use pt_format::write::{self, Object, Storage, Tensor};
use pt_loader::{Batch, DataSet, Options, Ragged, Unit};
use pt_view::{Access, FileCache};

struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: our caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: it was allocated by `System`, above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn allocations_do_not_grow_with_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..512 {
        let x = [number as f32; 64];
        let columns = Storage::new(bytemuck::cast_slice(&x).to_vec());
        let columns = Tensor::strided(DType::Float32, &[16, 4], &[1, 16], 0, &columns).unwrap();
        let halves = [half::f16::from_f32(number as f32); 16];
        let object = Object::dict([
            ("x", Tensor::new::<f32>(&[16, 4], &x).unwrap().into()),
            ("columns", columns.into()),
            ("half", Tensor::new::<half::f16>(&[16], &halves).unwrap().into()),
            ("y", Object::from(number as i64)),
            ("name", Object::from(format!("sample {number}"))),
        ]);
        fs::write(folder.path().join(format!("{number:03}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    for unit in [Unit::File, Unit::Row] {
        let data = DataSet::open_with(folder.path(), &Options { unit, ..Options::default() }).unwrap();
        let files = || FileCache::new(data.root(), data.index().clone()).with_capacity(1000);
        // SAFETY: nobody writes to the files.
        let mapped = unsafe { files().with_access(Access::Map) };
        let with = |files| DataSet::with_files(files, data.options()).unwrap();
        check(&format!("{unit:?}, kept"), &with(files()));
        check(&format!("{unit:?}, mapped"), &with(mapped));
        if unit == Unit::File {
            // More files than may stay open: each is opened and closed again.
            check("File, opened and closed", &with(files().with_capacity(8)));
        }
    }
}

fn check(way: &str, data: &DataSet) {
    let data = data.clone().to_float32("half", 2.0).unwrap();
    let order: Vec<usize> = (0..data.len()).map(|at| at * 1001 % data.len()).collect();
    let mut batch = Batch::default();
    let mut allocations = |samples: &[usize]| {
        // All files open, buffers grown, threads started, record headers checked.
        order.chunks(512).for_each(|samples| data.gather_into(samples, Ragged::Refuse, &mut batch).unwrap());
        (0..8).for_each(|_| data.gather_into(samples, Ragged::Refuse, &mut batch).unwrap());
        let counts = (0..5).map(|_| {
            let before = COUNT.load(Ordering::Relaxed);
            data.gather_into(samples, Ragged::Refuse, &mut batch).unwrap();
            COUNT.load(Ordering::Relaxed) - before
        });
        // Which thread gets which piece differs, and with it whose buffers have grown.
        counts.min().unwrap()
    };
    let (many, few) = (allocations(&order[..512]), allocations(&order[..16]));
    println!("{way}: {few} allocations for 16 samples, {many} for 512");
    assert!(many <= few + 16, "{way}: {few} allocations for 16 samples, {many} for 512");
}
