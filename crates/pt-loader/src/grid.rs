//! Samples that differ in more sizes than the first, each in the corner of a box that holds the largest of a batch.

use pt_format::DType;

use crate::pad::{Pad, Side, fill};
use crate::read;

/// A sample and the box it goes into: as many sizes each, in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid<'a> {
    has: &'a [u64],
    room: &'a [u64],
    side: Side,
    /// The last dimension in which they differ; what follows is copied in one go.
    last: usize,
}

impl<'a> Grid<'a> {
    /// Returns none where the sample is as large as the box.
    pub(crate) fn new(has: &'a [u64], room: &'a [u64], side: Side) -> Option<Self> {
        let last = has.iter().zip(room).rposition(|(has, room)| has != room)?;
        Some(Self { has, room, side, last })
    }

    /// Copies a sample into its box, without what does not fit, and pads around it.
    pub(crate) fn put(
        &self,
        from: &[u8],
        cast: Option<(DType, f32)>,
        out: &mut [u8],
        dtype: DType,
        pad: Pad,
    ) {
        if out.is_empty() {
            return;
        }
        let stored = cast.map_or(dtype, |(stored, _)| stored).itemsize();
        self.rows(|start, place, count| {
            let (start, place) = (start * stored, place * dtype.itemsize());
            let out = &mut out[place..place + count * dtype.itemsize()];
            read::copy(&from[start..start + count * stored], cast, out);
        });
        // From the inside out: what is a step of the next dimension is whole by then.
        for dim in (0..=self.last).rev() {
            let step = product(&self.room[dim + 1..]) * dtype.itemsize();
            let (kept, room) = (self.kept(dim), self.room[dim] as usize);
            let inside = self.side.place(room, kept);
            for number in 0..self.count_before(dim) {
                let place = self.place(number, dim).1 * dtype.itemsize();
                let inside = inside.start * step..inside.end * step;
                fill(&mut out[place..place + room * step], inside, step, dtype, pad);
            }
        }
    }

    /// Calls with each run of elements that are kept: where it begins in the sample and in the box, and its length.
    pub(crate) fn rows(&self, mut each: impl FnMut(usize, usize, usize)) {
        let inner = product(&self.room[self.last + 1..]);
        let (first, place, kept) = self.along(self.last);
        for number in 0..self.count_before(self.last) {
            let (start, row) = self.place(number, self.last);
            each(start + first * inner, row + place * inner, kept * inner);
        }
    }

    /// How many places there are along the dimensions before one.
    fn count_before(&self, dim: usize) -> usize {
        (0..dim).map(|dim| self.kept(dim)).product()
    }

    /// Where the n-th place along the dimensions before `dim` begins, in the sample and in the box.
    fn place(&self, mut number: usize, dim: usize) -> (usize, usize) {
        let (mut start, mut place) = (0, 0);
        let (mut stride, mut stride_out) = (product(&self.has[dim..]), product(&self.room[dim..]));
        for dim in (0..dim).rev() {
            let (first, at, kept) = self.along(dim);
            start += (first + number % kept) * stride;
            place += (at + number % kept) * stride_out;
            number /= kept;
            stride *= self.has[dim] as usize;
            stride_out *= self.room[dim] as usize;
        }
        (start, place)
    }

    /// Along a dimension: the first step that is kept, where it goes, and how many are.
    fn along(&self, dim: usize) -> (usize, usize, usize) {
        let kept = self.kept(dim);
        match self.side {
            Side::Left => (self.has[dim] as usize - kept, self.room[dim] as usize - kept, kept),
            Side::Right => (0, 0, kept),
        }
    }

    fn kept(&self, dim: usize) -> usize {
        self.has[dim].min(self.room[dim]) as usize
    }
}

fn product(sizes: &[u64]) -> usize {
    // Where one of them is 0, the others can be anything.
    sizes.iter().fold(1, |product, &size| product.wrapping_mul(size as usize))
}
