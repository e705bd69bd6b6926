//! One file, parsed: its value tree, its tensors, its storages.

use crate::container::{ArchiveRecords, Container, DescribedArchive, File, NoRecords, Plain};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::pickle::{Raw, Tree, Value};
use crate::rebuild::{self, BareStorage, Nested, PathStep, Records, Setting};
use crate::source::Source;
use crate::structure::Structure;
use crate::tensor::{Storage, StorageRow, Tensor, TensorRow};

/// The order of bytes inside the file's storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ByteOrder {
    /// Least significant byte first: all machines PyTorch usually runs on.
    #[default]
    Little,
    /// Most significant byte first: written on s390x and the like.
    Big,
}

/// A digest of the bytes that decide what a file holds and where: directory, pickle, byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    /// XXH3 (64 bits).
    pub digest: u64,
    /// Whether the digest covers tensor contents too: the directory holds a CRC for every non-empty storage.
    pub covers_content: bool,
}

/// A parsed checkpoint: what the file says, without any tensor bytes.
///
/// ```
/// use pt_format::{Checkpoint, DType, Limits, write};
/// let object = write::Object::dict([
///     ("weight", write::Tensor::new::<f32>(&[3], &[1.0, 2.0, 3.0])?.into()),
///     ("epoch", 7.into()),
/// ]);
/// let bytes = write::to_vec(&object)?;
///
/// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
/// assert_eq!(checkpoint.tensor("weight").unwrap().dtype(), Some(DType::Float32));
/// assert_eq!(checkpoint.values().get("epoch").unwrap().as_i64(), Some(7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint<'s> {
    pub(crate) tree: Tree<'s>,
    pub(crate) tensors: Vec<TensorRow>,
    pub(crate) storages: Vec<StorageRow>,
    pub(crate) dims: Vec<u64>,
    pub(crate) names: String,
    pub(crate) steps: Vec<PathStep>,
    pub(crate) node_states: Vec<u32>,
    pub(crate) bare_storages: Vec<BareStorage>,
    pub(crate) limits: Limits,
    container: Container,
    byte_order: ByteOrder,
    fingerprint: Fingerprint,
    aliases_cut: bool,
}

impl<'s> Checkpoint<'s> {
    /// Parses a file. Reads its directory and its pickle, no tensor bytes.
    ///
    /// A tensor that cannot be read does not fail the file: it is listed with its [fault](Tensor::fault).
    /// [`Self::check`] tells whether there are any.
    ///
    /// # Errors
    /// When the bytes are no checkpoint, when its structure is damaged, or when it exceeds `limits`.
    pub fn parse<S: Source + ?Sized>(source: &'s S, limits: &Limits) -> Result<Self> {
        let file = File::read(source, limits)?;
        let (container, byte_order, fingerprint) = (file.container(), file.byte_order(), file.fingerprint());
        let assemble = |tree, records: &dyn Records| {
            Self::assemble(tree, records, limits, container, byte_order, fingerprint)
        };
        match file {
            File::Pickles(archive, pickles) => {
                let (tree, folders) = pickles.run(limits)?;
                assemble(tree, &ArchiveRecords::new(&archive, folders))
            }
            File::Described(archive, described) => {
                let DescribedArchive { tree, folders, inner, .. } = *described;
                assemble(tree, &ArchiveRecords::new(&archive, folders).with_inner(inner))
            }
            File::Legacy(legacy) => {
                let (tree, records) = legacy.into_parts();
                assemble(tree, &records)
            }
            File::Tar(tar) => assemble(tar.tree, &tar.records),
            File::Safetensors(file) => assemble(file.tree, &file.records),
            File::Plain(plain) => {
                let found = assemble(plain.tree, &NoRecords)?;
                match found.tensors.is_empty() && found.bare_storages.is_empty() {
                    true => Err(Plain::without_tensors()),
                    false => Ok(found),
                }
            }
        }
    }

    /// Finds the tensors in the values, whatever container they came from.
    pub(crate) fn assemble(
        mut tree: Tree<'s>,
        records: &dyn Records,
        limits: &Limits,
        container: Container,
        byte_order: ByteOrder,
        fingerprint: Fingerprint,
    ) -> Result<Self> {
        let nested = Nested::resolve(&mut tree, limits);
        let found = rebuild::walk(&tree, Setting { records, nested: &nested, byte_order, limits })?;
        Ok(Self {
            tree,
            tensors: found.tensors,
            storages: found.storages,
            dims: found.dims,
            names: found.names,
            steps: found.steps,
            node_states: found.states,
            bare_storages: found.bare_storages,
            limits: *limits,
            container,
            byte_order,
            fingerprint,
            aliases_cut: found.aliases_cut,
        })
    }

    /// Returns the same checkpoint without borrowing from its source.
    pub fn into_owned(self) -> Checkpoint<'static> {
        Checkpoint { tree: self.tree.into_owned(), ..self }
    }

    /// Returns the tensors in file order, aliases and parts of composite tensors included.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> + Clone {
        (0..self.tensors.len() as u32).map(|index| Tensor { checkpoint: self, index })
    }

    /// Finds a tensor by its dotted name; the first one where names collide. Looks at every name: callers with many
    /// lookups build an index.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        self.tensors().find(|tensor| tensor.name() == name)
    }

    /// Returns the storages in the order the tensors first use them.
    pub fn storages(&self) -> impl ExactSizeIterator<Item = Storage<'_>> + Clone {
        (0..self.storages.len() as u32).map(|index| Storage { checkpoint: self, index })
    }

    /// Returns the object that was saved: of an archive with several pickles, the first.
    pub fn values(&self) -> Value<'_> {
        let raw = self.tree.roots.first().map_or(Raw::None, |root| root.value);
        Value { checkpoint: self, raw }
    }

    /// Returns the object of every pickle, with the name of its record. Most files have one; TorchScript keeps constants
    /// apart, and a `torch.package` has as many as were saved into it.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, write};
    /// let bytes = write::to_vec(&write::Object::from(7))?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// let (record, value) = checkpoint.pickles().next().unwrap();
    /// assert_eq!((record, value.as_i64()), ("archive/data.pkl", Some(7)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pickles(&self) -> impl ExactSizeIterator<Item = (&str, Value<'_>)> {
        self.tree.roots.iter().map(|root| (root.record.as_str(), Value { checkpoint: self, raw: root.value }))
    }

    /// Walks the saved object: the containers that hold its tensors and plain scalars, each before its content, in file
    /// order. Of an archive with several pickles, the first.
    ///
    /// ```
    /// use pt_format::{Checkpoint, Limits, PartKind, write};
    /// let bytes = write::to_vec(&write::Object::dict([("y", 3.into())]))?;
    /// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
    /// let kinds: Vec<_> = checkpoint.structure().map(|part| part.kind).collect();
    /// assert_eq!(kinds, [PartKind::Dict, PartKind::Leaf]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn structure(&self) -> Structure<'_> {
        Structure::new(self)
    }

    /// Returns the container the file is.
    pub fn container(&self) -> Container {
        self.container
    }

    /// Returns the order of bytes inside the storages.
    pub fn byte_order(&self) -> ByteOrder {
        self.byte_order
    }

    /// Returns the digest of everything this was parsed from.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Returns whether some names of shared tensors were left out, because the file has too many paths to them.
    pub fn aliases_cut(&self) -> bool {
        self.aliases_cut
    }

    /// Checks that every tensor and every storage saved as such can be read, as far as the file's structure tells.
    ///
    /// # Errors
    /// [`Error::Tensor`] for the first tensor with a fault, else [`Error::Storage`] for the first storage.
    pub fn check(&self) -> Result<()> {
        if let Some((tensor, fault)) = self.tensors().find_map(|tensor| Some((tensor, tensor.fault()?))) {
            return Err(Error::Tensor { tensor: tensor.name().to_owned(), fault: fault.clone() });
        }
        for bare in &self.bare_storages {
            let fault = match &bare.storage {
                Ok(index) => Storage { checkpoint: self, index: *index }.fault(),
                Err(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                return Err(Error::Storage { path: self.path_of(bare.step).join("."), fault: fault.clone() });
            }
        }
        Ok(())
    }

    pub(crate) fn path_of(&self, step: u32) -> Vec<String> {
        let mut path = Vec::new();
        let mut at = step;
        while at != 0 {
            let here = self.steps[at as usize];
            let mut component = String::new();
            rebuild::write_component(&self.tree, here.component, &mut component);
            path.push(component);
            at = here.parent;
        }
        path.reverse();
        path
    }
}

/// Computes the fingerprint of a file without running its pickle.
///
/// # Errors
/// As [`Checkpoint::parse`], as far as the container goes.
///
/// ```
/// use pt_format::{Checkpoint, Limits, fingerprint_of, write};
/// let bytes = write::to_vec(&write::Object::dict([("epoch", 7.into())]))?;
/// let checkpoint = Checkpoint::parse(&bytes, &Limits::default())?;
/// assert_eq!(fingerprint_of(&bytes, &Limits::default())?, checkpoint.fingerprint());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn fingerprint_of<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Fingerprint> {
    Ok(File::read(source, limits)?.fingerprint())
}
