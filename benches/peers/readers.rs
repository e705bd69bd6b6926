//! The readers: for each, how it lists a file, reads one tensor, and reads all of them.
//!
//! Listing sums up the lengths of names (below the dict that holds the tensors) and the sizes of shapes; reading sums up
//! bytes. So all of them must come to the same number.

use std::path::{Path, PathBuf};

use burn_store::ModuleStore;
use burn_store::pytorch::PytorchStore;
use candle_core::pickle::PthTensors;
use pt_view::{IndexPolicy, Mapping, OpenOptions, TensorView};
use pytorch_reader::PytorchReader;
use safetensors::SafeTensors;

pub(crate) type Problem = Box<dyn std::error::Error>;
pub(crate) type Result<T> = std::result::Result<T, Problem>;

/// One of them. `key` names the dict in the file that holds the tensors.
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    pub(crate) list: fn(&Path, Option<&str>) -> Result<u64>,
    pub(crate) one: fn(&Path, Option<&str>, &str) -> Result<u64>,
    pub(crate) all: fn(&Path, Option<&str>) -> Result<u64>,
}

pub(crate) const READERS: [Reader; 7] = [
    Reader {
        name: "ptview, through its index",
        list: |path, key| ptview_list(&ptview(path, IndexPolicy::Sidecar)?, key),
        one: |path, key, name| ptview_one(&ptview(path, IndexPolicy::Sidecar)?, key, name),
        all: |path, _| ptview_all(&ptview(path, IndexPolicy::Sidecar)?),
    },
    Reader {
        name: "ptview",
        list: |path, key| ptview_list(&ptview(path, IndexPolicy::Parse)?, key),
        one: |path, key, name| ptview_one(&ptview(path, IndexPolicy::Parse)?, key, name),
        all: |path, _| ptview_all(&ptview(path, IndexPolicy::Parse)?),
    },
    Reader {
        name: "pytorch-reader",
        list: |path, key| {
            let reader = pytorch_reader(path, key)?;
            Ok(reader.tensors().iter().map(|(name, tensor)| listed(name, tensor.shape())).sum())
        },
        one: |path, key, name| {
            let reader = pytorch_reader(path, key)?;
            Ok(summed(&reader.get(name).ok_or("no such tensor")?.read()?))
        },
        all: |path, key| {
            let reader = pytorch_reader(path, key)?;
            reader.tensors().values().try_fold(0, |sum, tensor| Ok(sum + summed(&tensor.read()?)))
        },
    },
    Reader {
        name: "burn-store",
        list: |path, key| {
            let mut store = burn_store(path, key);
            let tensors = store.get_all_tensors()?;
            Ok(tensors.iter().map(|(name, tensor)| listed(name, tensor.shape.as_slice())).sum())
        },
        one: |path, key, name| {
            let mut store = burn_store(path, key);
            Ok(summed(&store.get_tensor(name)?.ok_or("no such tensor")?.to_bytes()?))
        },
        all: |path, key| {
            let mut store = burn_store(path, key);
            let mut tensors = store.get_all_tensors()?.values();
            tensors.try_fold(0, |sum, tensor| Ok(sum + summed(&tensor.to_bytes()?)))
        },
    },
    Reader {
        name: "candle",
        list: |path, key| {
            let tensors = PthTensors::new(path, key)?;
            Ok(tensors.tensor_infos().iter().map(|(name, info)| listed(name, info.layout.dims())).sum())
        },
        one: |path, key, name| candle_bytes(&PthTensors::new(path, key)?, name),
        all: |path, key| {
            let tensors = PthTensors::new(path, key)?;
            let mut names = tensors.tensor_infos().keys();
            names.try_fold(0, |sum, name| Ok(sum + candle_bytes(&tensors, name)?))
        },
    },
    Reader {
        name: "ztensor-compat",
        list: |path, key| {
            let source = ztensor_compat::open(path)?;
            let named = |name: &str| name.len() as u64 - prefix(key).len() as u64;
            Ok(source.tensors().map(|tensor| named(tensor.name()) + tensor.shape().iter().sum::<u64>()).sum())
        },
        one: |path, key, name| {
            let source = ztensor_compat::open(path)?;
            Ok(summed(&source.tensor(&format!("{}{name}", prefix(key)))?.data()?.bytes()?))
        },
        all: |path, _| {
            let source = ztensor_compat::open(path)?;
            source.tensors().try_fold(0, |sum, tensor| Ok(sum + summed(&tensor.data()?.bytes()?)))
        },
    },
    Reader {
        name: "safetensors, converted",
        list: |path, key| {
            let map = converted(path, key)?;
            let tensors = SafeTensors::deserialize(&map)?;
            Ok(tensors.iter().map(|(name, tensor)| listed(name, tensor.shape())).sum())
        },
        one: |path, key, name| {
            let map = converted(path, key)?;
            Ok(summed(SafeTensors::deserialize(&map)?.tensor(name)?.data()))
        },
        all: |path, key| {
            let map = converted(path, key)?;
            Ok(SafeTensors::deserialize(&map)?.iter().map(|(_, tensor)| summed(tensor.data())).sum())
        },
    },
];

fn listed(name: &str, shape: &[usize]) -> u64 {
    (name.len() + shape.iter().sum::<usize>()) as u64
}

/// Looks at every byte, eight at a time.
fn summed(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks();
    let words = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(words, |sum, &byte| sum.wrapping_add(byte.into())) + bytes.len() as u64
}

fn prefix(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!("{key}."))
}

fn ptview(path: &Path, index: IndexPolicy) -> Result<Mapping> {
    // SAFETY: the files are those of this benchmark; nobody changes them.
    Ok(unsafe { Mapping::open_with(path, &OpenOptions { index, ..OpenOptions::default() }) }?)
}

fn ptview_list(mapping: &Mapping, key: Option<&str>) -> Result<u64> {
    let skipped = prefix(key).len() as u64;
    let sum = |tensor: TensorView<'_>| {
        let shape = tensor.entry().shape()?.iter().sum::<u64>();
        Some(tensor.name().len() as u64 - skipped + shape)
    };
    mapping.tensors().map(sum).sum::<Option<u64>>().ok_or_else(|| "a tensor without shape".into())
}

fn ptview_one(mapping: &Mapping, key: Option<&str>, name: &str) -> Result<u64> {
    Ok(summed(mapping.tensor(&format!("{}{name}", prefix(key)))?.as_bytes()?))
}

fn ptview_all(mapping: &Mapping) -> Result<u64> {
    mapping.tensors().try_fold(0, |sum, tensor| Ok(sum + summed(tensor.as_bytes()?)))
}

fn pytorch_reader(path: &Path, key: Option<&str>) -> Result<PytorchReader> {
    Ok(match key {
        Some(key) => PytorchReader::with_top_level_key(path, key)?,
        None => PytorchReader::new(path)?,
    })
}

fn burn_store(path: &Path, key: Option<&str>) -> PytorchStore {
    let store = PytorchStore::from_file(path).map_indices_contiguous(false);
    match key {
        Some(key) => store.with_top_level_key(key),
        None => store,
    }
}

fn candle_bytes(tensors: &PthTensors, name: &str) -> Result<u64> {
    let tensor = tensors.get(name)?.ok_or("no such tensor")?.flatten_all()?;
    // It lends values, not bytes.
    Ok(match tensor.dtype() {
        candle_core::DType::F16 => summed(&le_bytes(tensor.to_vec1::<half::f16>()?, half::f16::to_le_bytes)),
        _ => summed(&le_bytes(tensor.to_vec1::<f32>()?, f32::to_le_bytes)),
    })
}

fn le_bytes<T, const N: usize>(values: Vec<T>, bytes: fn(T) -> [u8; N]) -> Vec<u8> {
    values.into_iter().flat_map(bytes).collect()
}

/// Makes what readers of other formats need, once: an index, a safetensors file.
pub(crate) fn prepare(path: &Path, key: Option<&str>) {
    let index = pt_index::build_file(path, &Default::default()).unwrap();
    pt_index::save(&index, &pt_index::sidecar_path(path)).unwrap();
    let target = converted_path(path);
    if target.exists() {
        return;
    }
    let mapping = ptview(path, IndexPolicy::Parse).unwrap();
    let skipped = prefix(key).len();
    let tensors: Vec<(String, pt_view::SafeTensor<'_>)> = mapping
        .tensors()
        .map(|tensor| (tensor.name()[skipped..].to_owned(), tensor.to_safetensor().unwrap()))
        .collect();
    safetensors::serialize_to_file(tensors, None, &target).unwrap();
}

fn converted_path(path: &Path) -> PathBuf {
    path.with_extension("safetensors")
}

fn converted(path: &Path, _: Option<&str>) -> Result<memmap2::Mmap> {
    let file = std::fs::File::open(converted_path(path))?;
    // SAFETY: as in `ptview`.
    Ok(unsafe { memmap2::Mmap::map(&file) }?)
}
