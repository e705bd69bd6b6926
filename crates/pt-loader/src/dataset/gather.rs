//! Samples of a data set: gathered into batches, lent in place, tried one by one.

use pt_view::Access;

use super::DataSet;
use crate::batch::{Batch, Ragged};
use crate::error::{Error, Result};
use crate::gather;
use crate::plan::BatchPlan;

impl DataSet {
    /// Gathers samples into one batch, in this order. Reads run in parallel on rayon's pool.
    ///
    /// # Errors
    /// [`Error::At`] naming sample and file, [`Error::NoSuchSample`], [`Error::Uneven`] when ragged samples differ.
    pub fn gather(&self, samples: &[usize]) -> Result<Batch> {
        let mut batch = Batch::default();
        self.gather_into(samples, Ragged::Refuse, &mut batch)?;
        Ok(batch)
    }

    /// Gathers samples into a batch whose memory is used again; ragged fields as asked.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// use pt_loader::{Batch, Pad, Ragged};
    /// let mut batch = Batch::default();
    /// for samples in [[0, 1], [2, 3]] {
    ///     data.gather_into(&samples, Ragged::Pad(Pad::default()), &mut batch)?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`gather`](Self::gather). The batch is empty then.
    pub fn gather_into(&self, samples: &[usize], ragged: Ragged, batch: &mut Batch) -> Result<()> {
        batch.gather(self, samples, ragged)
    }

    /// Lends the elements of one field of a sample, without copying, as bytes. `None` where they cannot be lent: the files are not mapped (see
    /// [`Self::with_files`]) or too many to be kept open, the field is to be cast, or its elements do not lie in the file as they
    /// are.
    ///
    /// # Errors
    /// [`Error::NoSuchSample`]; [`Error::At`] when the file cannot be opened.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let field = data.fields().iter().position(|field| field.name == "x").unwrap();
    /// if let Some(bytes) = data.lend(7, field)? {
    ///     println!("{} bytes in place", bytes.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn lend(&self, sample: usize, field: usize) -> Result<Option<&[u8]>> {
        match gather::lent(self, sample, field) {
            Some(bytes) => Ok(Some(bytes)),
            None => self.lend_first(sample, field),
        }
    }

    #[cold]
    fn lend_first(&self, sample: usize, field: usize) -> Result<Option<&[u8]>> {
        if sample >= self.len() {
            return Err(Error::NoSuchSample { sample, count: self.len() });
        }
        if self.shared.files.cache().access() == Access::Read {
            return Ok(None);
        }
        // Opens the file, and finds and checks all that is asked when a batch is read.
        self.gather_into(&[sample], Ragged::Refuse, &mut Batch::default())?;
        Ok(gather::lent(self, sample, field))
    }

    /// Reads samples each alone, and returns those that can be read; `failed` is told of the others, and why. For batches that
    /// failed and are to go on without what is broken.
    ///
    /// ```
    /// # fn show(data: pt_loader::DataSet) -> pt_loader::Result<()> {
    /// let good = data.readable(&[3, 1, 4], |sample, error| eprintln!("sample {sample}: {error}"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What is no fault of a single sample: [`Error::NoSuchSample`], [`Error::TooLarge`].
    pub fn readable(&self, samples: &[usize], mut failed: impl FnMut(usize, Error)) -> Result<Vec<usize>> {
        let mut good = Vec::with_capacity(samples.len());
        let (mut one, mut memory) = (BatchPlan::default(), Vec::new());
        for &sample in samples {
            self.plan_into(&[sample], Ragged::Joined, &mut one)?;
            let more = one.bytes().saturating_sub(memory.len());
            memory.try_reserve(more).map_err(|_| Error::TooLarge { samples: 1 })?;
            memory.resize(one.bytes().max(memory.len()), 0);
            match one.read_alone(&mut memory) {
                Ok(()) => good.push(sample),
                Err(Error::At { source, .. }) => failed(sample, *source),
                Err(error) => return Err(error),
            }
        }
        Ok(good)
    }

    /// Lays out a batch without reading it; see [`BatchPlan`].
    ///
    /// # Errors
    /// [`Error::NoSuchSample`], [`Error::Uneven`], [`Error::TooLarge`]. The plan is empty then.
    pub fn plan_into(&self, samples: &[usize], ragged: Ragged, plan: &mut BatchPlan) -> Result<()> {
        if let Err(error) = plan.set(self, samples, ragged) {
            plan.clear();
            return Err(error);
        }
        Ok(())
    }
}
