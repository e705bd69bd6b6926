//! Gathering into a used batch allocates as often for many samples as for few.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use pt_format::write::{self, Object, Tensor};
use pt_loader::{Batch, DataSet, Options, Ragged, Unit};

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
        let object = Object::dict([
            ("x", Tensor::new::<f32>(&[16, 4], &x).unwrap().into()),
            ("y", Object::from(number as i64)),
            ("name", Object::from(format!("sample {number}"))),
        ]);
        fs::write(folder.path().join(format!("{number:03}.pt")), write::to_vec(&object).unwrap()).unwrap();
    }
    for unit in [Unit::File, Unit::Row] {
        let data = DataSet::open_with(folder.path(), &Options { unit, ..Options::default() }).unwrap();
        let order: Vec<usize> = (0..data.len()).map(|at| at * 1001 % data.len()).collect();
        let mut batch = Batch::default();
        let mut allocations = |samples: &[usize]| {
            // Twice before: buffers grow, threads start, record headers are checked for the first time.
            (0..2).for_each(|_| data.gather_into(samples, Ragged::Refuse, &mut batch).unwrap());
            let before = COUNT.load(Ordering::Relaxed);
            data.gather_into(samples, Ragged::Refuse, &mut batch).unwrap();
            COUNT.load(Ordering::Relaxed) - before
        };
        let (many, few) = (allocations(&order[..512]), allocations(&order[..16]));
        println!("{unit:?}: {few} allocations for 16 samples, {many} for 512");
        assert!(many <= few + 16, "{unit:?}: {few} allocations for 16 samples, {many} for 512");
    }
}
