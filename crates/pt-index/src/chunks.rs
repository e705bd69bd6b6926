//! Which chunks a tensor of a distributed checkpoint lies in.

use std::collections::HashMap;

use pt_format::{Flags, Layout};

use crate::index::{Index, TensorEntry};

/// The chunks of all tensors of an index that lie in several, by the names of the tensors.
///
/// ```
/// # use std::path::Path;
/// let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/fixtures/pkg/dcp"));
/// let index = pt_index::build_distributed(folder, &Default::default())?;
/// // One process saved it, so its tensors lie in one piece.
/// assert!(pt_index::Chunks::new(&index).of("w").is_empty());
/// # Ok::<(), pt_index::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    of: HashMap<Box<str>, Vec<ChunkPlace>>,
}

/// A chunk: a tensor of the index, and where its elements belong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkPlace {
    /// Number of the file it is in.
    pub file: usize,
    /// Its number in that file.
    pub number: usize,
    /// Position of its first element in the whole tensor.
    pub offsets: Box<[u64]>,
}

impl Chunks {
    /// Looks through all tensors of an index.
    pub fn new(index: &Index) -> Self {
        let mut of: HashMap<Box<str>, Vec<ChunkPlace>> = HashMap::new();
        let parts = index.files().filter(|file| file.is_part());
        for tensor in parts.flat_map(|file| file.tensors()).filter(is_chunk) {
            let Some((whole, offsets)) = parse_name(tensor.name()) else { continue };
            let place = ChunkPlace { file: tensor.file().row(), number: tensor.number(), offsets };
            match of.get_mut(whole) {
                Some(chunks) => chunks.push(place),
                None => drop(of.insert(whole.into(), vec![place])),
            }
        }
        Self { of }
    }

    /// Returns the chunks of a tensor, file by file; none where it does not lie in chunks.
    pub fn of(&self, tensor: &str) -> &[ChunkPlace] {
        self.of.get(tensor).map_or(&[], Vec::as_slice)
    }
}

fn is_chunk(tensor: &TensorEntry<'_>) -> bool {
    tensor.flags().contains(Flags::PART) && tensor.layout() == Layout::Strided
}

/// Returns the name of a chunk: that of the whole, and the position of its first element in it.
pub(crate) fn name_of_chunk(whole: &str, offsets: &[u64]) -> String {
    format!("{whole}#{offsets:?}")
}

/// Undoes [`name_of_chunk`].
fn parse_name(name: &str) -> Option<(&str, Box<[u64]>)> {
    let (whole, list) = name.strip_suffix(']')?.rsplit_once("#[")?;
    let offsets = list.split(", ").filter(|_| !list.is_empty()).map(|number| number.parse().ok());
    Some((whole, offsets.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for (whole, offsets) in [("w", &[0, 4][..]), ("a#[1]", &[7]), ("", &[]), ("x#[", &[u64::MAX])] {
            let name = name_of_chunk(whole, offsets);
            assert_eq!(parse_name(&name), Some((whole, offsets.into())), "{name}");
        }
        for other in ["w", "w#[a]", "w#[1].x", "w[1]", "w#[-1]", "w#[1,2]"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
