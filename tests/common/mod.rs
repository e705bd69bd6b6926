//! What several tests need: the fixtures and what `testdata/expected.json` says of them, and our own answer in the
//! same words.

#![allow(dead_code, unused_imports, unreachable_pub)] // each test program uses its part

mod archive;
mod description;
mod pickle;
mod tree;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use pt_format::{Checkpoint, DType, Flags, Layout, Quantizer, Tensor, geometry};
use pt_index::Index;
use pt_view::{FileBytes, TensorView};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

pub use self::archive::torch_like;
pub use self::description::Description;
pub use self::pickle::Pickle;
pub use self::tree::{normalized, tree};

/// Returns the folder of the root package.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fixture and what must be said of it.
pub struct Fixture {
    pub name: String,
    pub entry: Json,
}

impl Fixture {
    pub fn path(&self) -> PathBuf {
        root().join("testdata/fixtures").join(&self.name)
    }

    /// Reads the file, or the folder's file that a reader would open first.
    pub fn bytes(&self) -> Vec<u8> {
        let path = self.path();
        fs::read(if path.is_dir() { path.join(".metadata") } else { path }).unwrap()
    }

    pub fn text(&self, field: &str) -> &str {
        self.entry[field].as_str().unwrap_or_default()
    }
}

/// Returns all fixtures, sorted by name.
pub fn fixtures() -> Vec<Fixture> {
    let text = fs::read_to_string(root().join("testdata/expected.json")).unwrap();
    let mut expected: Json = serde_json::from_str(&text).unwrap();
    let Json::Object(files) = expected["files"].take() else { panic!("`files` is a table") };
    files.into_iter().map(|(name, entry)| Fixture { name, entry }).collect()
}

/// Returns the fixtures that are torch.save files and must be read.
pub fn readable_fixtures() -> Vec<Fixture> {
    let mut all = fixtures();
    let containers = ["zip", "legacy", "tar", "pickle", "torchscript", "package", "pt2"];
    all.retain(|fixture| containers.contains(&fixture.text("container")) && fixture.text("result") == "ok");
    all
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that was parsed, indexed, and whose index went through bytes.
pub struct Opened<'b> {
    pub bytes: &'b [u8],
    pub checkpoint: Checkpoint<'b>,
    pub index: Index,
}

impl<'b> Opened<'b> {
    pub fn new(bytes: &'b [u8]) -> pt_format::Result<Self> {
        let checkpoint = Checkpoint::parse(bytes, &pt_format::Limits::default())?;
        let index = pt_index::index_of(&checkpoint).unwrap();
        let index = Index::from_bytes(index.as_bytes().to_vec()).unwrap();
        Ok(Self { bytes, checkpoint, index })
    }

    /// Returns each tensor with its view.
    pub fn tensors(&self) -> impl Iterator<Item = (Tensor<'_>, TensorView<'_>)> {
        let views = (0..self.index.tensor_count())
            .map(|row| TensorView::new(self.index.tensor(row).unwrap(), FileBytes::new(self.bytes)));
        assert_eq!(self.index.tensor_count(), self.checkpoint.tensors().len());
        self.checkpoint.tensors().zip(views)
    }
}

/// Describes every tensor in the words of `expected.json`.
///
/// Left out are the fields our API has no word for: `ragged_idx` (an attribute like any other), and the digest of a
/// whole storage record.
pub fn describe(opened: &Opened<'_>) -> Vec<Json> {
    let mut users = HashMap::new();
    for storage in opened.checkpoint.tensors().filter_map(|tensor| tensor.storage()) {
        *users.entry(storage.index()).or_insert(0) += 1;
    }
    opened
        .tensors()
        .map(|(tensor, view)| {
            let shared = tensor.storage().is_some_and(|storage| users[&storage.index()] > 1);
            describe_tensor(tensor, view, shared)
        })
        .collect()
}

fn describe_tensor(tensor: Tensor<'_>, view: TensorView<'_>, shared: bool) -> Json {
    let has_bytes = tensor.storage().is_some();
    let packed = tensor.dtype().is_some_and(|dtype| dtype.packing().is_some());
    let sha256_of_copy =
        || view.to_bytes().map_or_else(|error| json!(error.to_string()), |b| json!(sha256(&b)));
    let mut out = json!({
        "name": tensor.name(),
        "path": tensor.path(),
        "dtype": tensor.dtype().map(DType::name),
        "shape": tensor.shape(),
        "stride": tensor.stride(),
        "storage_offset": tensor.stride().map(|_| tensor.storage_offset()),
        "requires_grad": tensor.requires_grad(),
        "layout": tensor.layout().name(),
        "sha256": if has_bytes && !packed && !is_expanded_beyond_memory(tensor) { sha256_of_copy() } else { Json::Null },
        "data_offset": view.locate().map(|location| location.offset),
        "zero_copy": view.caps().zero_copy,
        "alias_of": tensor.alias_of().map(|first| first.path()),
        "param": tensor.flags().contains(Flags::PARAMETER),
        "subclass": tensor.class(),
        "storage": tensor.storage().map(|storage| json!({
            "key": storage.key(),
            "class": storage.class().rsplit('.').next(),
            "numel": storage.numel(),
            "nbytes": storage.nbytes(),
            "location": storage.location(),
            "file_offset": storage.data_offset(),
        })),
        "flags": flags(tensor, shared),
    });
    let more: &mut Map<String, Json> = out.as_object_mut().unwrap();
    if has_bytes {
        more.insert("numel".into(), json!(tensor.numel()));
    }
    match tensor.quantizer() {
        None => {}
        Some(Quantizer::PerTensor { scheme, scale, zero_point }) => {
            more.insert("quant".into(), json!({"scheme": scheme, "scale": scale, "zero_point": zero_point}));
        }
        Some(Quantizer::PerChannel { scheme, axis }) => {
            more.insert("quant".into(), json!({"scheme": scheme, "axis": axis}));
        }
        Some(other) => panic!("{other:?}"),
    }
    if tensor.layout() == Layout::SparseCoo {
        more.insert("coalesced".into(), json!(tensor.is_coalesced()));
    }
    out
}

/// `expected.json` has no digest of what has more elements than this; nor do we want to expand them.
fn is_expanded_beyond_memory(tensor: Tensor<'_>) -> bool {
    tensor.numel().is_some_and(|numel| numel > 1 << 22)
}

/// The words of `expected.json` that follow from what our API says.
fn flags(tensor: Tensor<'_>, shared_storage: bool) -> Vec<&'static str> {
    let layout = tensor.layout();
    let bytes = tensor.storage();
    let dims = || tensor.shape().into_iter().flatten().zip(tensor.stride().into_iter().flatten());
    let packed = tensor.dtype().is_some_and(|dtype| dtype.packing().is_some());
    let is_view = bytes.is_some_and(|storage| {
        let whole =
            geometry::nbytes(tensor.dtype().unwrap(), tensor.shape().unwrap()) == Some(storage.nbytes());
        tensor.numel() != Some(0) && (tensor.storage_offset() > 0 || !whole || !tensor.is_contiguous())
    });
    let words = [
        ("conj", tensor.flags().contains(Flags::CONJ)),
        ("empty", bytes.is_some() && tensor.numel() == Some(0)),
        ("expanded", bytes.is_some() && dims().any(|(&size, &stride)| size > 1 && stride == 0)),
        ("meta", tensor.flags().contains(Flags::META)),
        ("neg", tensor.flags().contains(Flags::NEG)),
        ("nested", matches!(layout, Layout::NestedStrided | Layout::NestedJagged)),
        ("noncontiguous", bytes.is_some() && !tensor.is_contiguous()),
        ("numpy", tensor.flags().contains(Flags::NUMPY)),
        ("packed", packed),
        ("param", tensor.flags().contains(Flags::PARAMETER)),
        ("quantized", tensor.flags().contains(Flags::QUANTIZED)),
        ("shared_storage", shared_storage),
        ("sparse", layout.name().starts_with("sparse")),
        (layout.name(), layout.name().starts_with("sparse")),
        ("subclass", tensor.class().is_some()),
        ("view", is_view && !packed),
        ("wrapper", layout == Layout::Wrapper),
    ];
    words.into_iter().filter_map(|(word, on)| on.then_some(word)).collect()
}
