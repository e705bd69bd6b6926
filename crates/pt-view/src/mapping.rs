//! A mapped file with its index. Its constructors are `unsafe` and so stand in the module `map`.

use std::path::{Path, PathBuf};

use pt_index::{FileEntry, FileSource, Index};

use crate::bytes::{CheckedRecords, FileBytes};
use crate::error::{Error, Result};
use crate::map::Map;
use crate::view::TensorView;

/// Where the index of a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IndexPolicy {
    /// From the sidecar if there is a fresh one, else from the file itself.
    #[default]
    Auto,
    /// From the sidecar; an error when it is missing or stale.
    Sidecar,
    /// From the file itself.
    Parse,
}

/// A PyTorch file, mapped, with the index of its tensors.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("model.pt");
/// # use pt_format::write::{self, Object, Tensor};
/// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
/// use pt_view::Mapping;
/// // SAFETY: nobody rewrites or truncates the file while it is mapped.
/// let mapping = unsafe { Mapping::open(&path)? };
/// for tensor in mapping.tensors() {
///     println!("{} {:?} {:?}", tensor.name(), tensor.dtype(), tensor.shape());
/// }
/// assert_eq!(mapping.tensor("w")?.as_slice::<u8>()?, [1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mapping {
    pub(crate) path: PathBuf,
    pub(crate) source: FileSource,
    pub(crate) map: Map,
    pub(crate) index: Index,
    pub(crate) checked: CheckedRecords,
}

impl Mapping {
    /// Returns the path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Returns the views of all tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> + Clone {
        let entries = self.file().into_iter().flat_map(|file| file.tensors());
        entries.map(|entry| TensorView::new(entry, self.file_bytes()))
    }

    /// Finds a tensor by its dotted name.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let entry = self.file().and_then(|file| file.tensor(name));
        entry.map(|entry| TensorView::new(entry, self.file_bytes())).ok_or_else(|| self.no_such_tensor(name))
    }

    /// Returns the view of the tensor with this number among the file's.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("model.pt");
    /// # use pt_format::write::{self, Object, Tensor};
    /// # std::fs::write(&path, write::to_vec(&Object::dict([("w", Tensor::new::<u8>(&[3], &[1, 2, 3])?.into())]))?)?;
    /// # // SAFETY: nobody rewrites or truncates the file while it is mapped.
    /// # let mapping = unsafe { pt_view::Mapping::open(&path)? };
    /// let number = mapping.tensor("w")?.entry().number(); // once
    /// assert_eq!(mapping.tensor_at(number).unwrap().name(), "w"); // as often as need be, without a name to look up
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tensor_at(&self, number: usize) -> Option<TensorView<'_>> {
        let entry = self.file()?.tensor_at(number)?;
        Some(TensorView::new(entry, self.file_bytes()))
    }

    fn file(&self) -> Option<FileEntry<'_>> {
        self.index.file(0)
    }

    pub(crate) fn file_bytes(&self) -> FileBytes<'_> {
        FileBytes::mapped(&self.map, &self.source, &self.checked)
    }

    #[cold]
    fn no_such_tensor(&self, name: &str) -> Error {
        let common =
            |other: &str| name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
        let names = self.tensors().map(|tensor| tensor.name());
        let nearest = names.max_by_key(|other| common(other)).map(str::to_owned);
        Error::NoSuchTensor { name: name.to_owned(), count: self.tensors().count(), nearest }
    }
}

pub(crate) fn map_error(path: &Path) -> impl Fn(std::io::Error) -> Error + use<'_> {
    move |source| Error::Map { path: path.to_owned(), source }
}
