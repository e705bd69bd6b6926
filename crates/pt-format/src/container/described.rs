//! Containers that describe their tensors in JSON: safetensors, `.pt2`, TorchScript of 1.0 to 1.3. Older `.pt2` files, and some
//! tensors of newer ones, are archives of `torch.save` inside the archive; so are the weights beside compiled code (`compiled.rs`).
//!
//! Each description becomes the call that a pickle would hold in its place, `_rebuild_tensor_v3` over an untyped storage,
//! in a dict by name; from there on everything goes the usual way.
//!
//! Source: the safetensors format description; `torch/export/pt2_archive/` and `torch/_export/serde/schema.py`;
//! `caffe2/proto/torch.proto` of torch 1.0.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::Value as Json;

use crate::checkpoint::ByteOrder;
use crate::container::compiled::Compiled;
use crate::container::inner::{InnerArchives, InnerRecords};
use crate::container::legacy::LegacyRecords;
use crate::container::pickles::{Folder, read_byte_order};
use crate::container::{Archive, Container};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::geometry;
use crate::limits::Limits;
use crate::pickle::{Known, Raw, Root, Tree};
use crate::source::{Source, read};

/// Put in front of the names of constants, as TorchScript has it: weights alone are in a state dict.
const CONSTANTS: &str = "CONSTANTS";
/// Put in front of the names of what a model was exported with: position 0 holds its arguments, 1 those with a name.
const SAMPLE_INPUTS: &str = "SAMPLE_INPUTS";
/// Names of records that are plain pickles of opaque objects.
const OPAQUE_OBJECT: &str = "opaque_obj_";

/// Length of the JSON, in front of it.
const SAFETENSORS_LENGTH_BYTES: u64 = 8;

/// A safetensors file: its header as a tree, and where its tensors lie.
pub(crate) struct Safetensors {
    pub(crate) tree: Tree<'static>,
    pub(crate) records: LegacyRecords,
    pub(crate) header: Vec<u8>,
}

#[derive(Deserialize)]
struct SafetensorsEntry {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: [u64; 2],
}

impl Safetensors {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::Json`] when it is malformed, [`Error::Limit`] when it is too long.
    pub(crate) fn parse<S: Source + ?Sized>(source: &S, limits: &Limits) -> Result<Self> {
        let length = read(source, 0, SAFETENSORS_LENGTH_BYTES)?;
        let length = length.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        if length > limits.pickle_bytes {
            let limit = limits.pickle_bytes;
            return Err(Error::Limit {
                what: "bytes of the header",
                found: length,
                limit,
                field: "pickle_bytes",
            });
        }
        let header = read(source, SAFETENSORS_LENGTH_BYTES, length)?;
        let data_start = SAFETENSORS_LENGTH_BYTES + length;
        let entries: Pairs<Json> = parse_json("safetensors header", &header)?;

        let mut tree = Tree::new(Vec::new().into());
        let mut records = LegacyRecords::default();
        let mut pairs = Vec::with_capacity(2 * entries.0.len());
        for (name, entry) in entries.0 {
            let key = tree.keep_str(&name);
            if name == "__metadata__" {
                let metadata: Pairs<String> = from_json("safetensors header", entry)?;
                let metadata: Vec<Raw> =
                    metadata.0.iter().flat_map(|(k, v)| [tree.keep_str(k), tree.keep_str(v)]).collect();
                pairs.extend([key, tree.add_dict(&metadata)]);
                continue;
            }
            let entry: SafetensorsEntry = from_json("safetensors header", entry)?;
            let [start, end] = entry.data_offsets;
            let malformed =
                |problem: &str| json_error("safetensors header", format!("tensor `{name}`: {problem}"));
            let bytes = end.checked_sub(start).ok_or_else(|| malformed("its data ends before it starts"))?;
            let place =
                data_start.checked_add(start).ok_or_else(|| malformed("its data starts past 2^64"))?;
            if place.saturating_add(bytes) > source.len() {
                return Err(malformed("its data runs past the end of the file, which may be cut off"));
            }
            records.add(name.clone().into_bytes(), place, bytes);
            let sizes: Vec<u64> = entry.shape.iter().map(|&size| size.unsigned_abs()).collect();
            let strides =
                geometry::contiguous_stride(&sizes).into_iter().map(|stride| stride as i64).collect();
            let described = Described {
                key: name,
                bytes,
                dtype: safetensors_dtype(&entry.dtype).unwrap_or(&entry.dtype).to_owned(),
                sizes: entry.shape,
                strides,
                offset: 0,
                requires_grad: false,
                is_parameter: false,
            };
            pairs.extend([key, described.call(&mut tree)]);
        }
        add_root(&mut tree, "header".into(), Vec::new(), &pairs);
        Ok(Self { tree, records, header: header.into_owned() })
    }
}

/// An archive whose tensors are described in JSON records.
pub(crate) struct DescribedArchive {
    pub(crate) container: Container,
    pub(crate) byte_order: ByteOrder,
    pub(crate) tree: Tree<'static>,
    pub(crate) folders: Vec<Folder>,
    /// Storages of archives in it.
    pub(crate) inner: InnerRecords,
    /// The JSON, and the pickles of archives in it, for the fingerprint.
    pub(crate) text: Vec<u8>,
}

impl DescribedArchive {
    /// Reads the descriptions, or returns `None` when the archive holds a pickle instead.
    ///
    /// # Errors
    /// [`Error::Json`] when a description is malformed, [`Error::Record`] when an archive in it is.
    pub(crate) fn read<S: Source + ?Sized>(
        archive: &Archive<'_, S>,
        limits: &Limits,
    ) -> Result<Option<Self>> {
        let mut described = Self {
            container: Container::Pt2,
            byte_order: ByteOrder::Little,
            tree: Tree::new(Vec::new().into()),
            folders: Vec::new(),
            inner: InnerRecords::default(),
            text: Vec::new(),
        };
        if archive.find_in_root("archive_format").is_some() {
            described.byte_order = read_byte_order(archive)?;
            described.read_pt2(archive, limits)?;
        } else if archive.find(b"serialized_exported_program.json").is_some() {
            described.read_old_pt2(archive, limits)?;
        } else if let Some(index) = archive.find_in_root("model.json") {
            described.container = Container::TorchScript;
            described.read_model_json(archive, index, limits)?;
        } else {
            return Ok(None);
        }
        Ok(Some(described))
    }

    /// `data/weights/<model>_weights_config.json` and its like for constants, or `data/weights/<model>.pt` in earlier files;
    /// weights of compiled models.
    fn read_pt2<S: Source + ?Sized>(&mut self, archive: &Archive<'_, S>, limits: &Limits) -> Result<()> {
        const SECTIONS: [(&str, &str, Option<&str>); 3] = [
            ("data/weights/", "_weights_config.json", None),
            ("data/constants/", "_constants_config.json", Some(CONSTANTS)),
            ("data/sample_inputs/", "", Some(SAMPLE_INPUTS)),
        ];
        let models = archive.in_root("models/");
        let models =
            archive.entries().iter().filter(|entry| archive.name(entry).starts_with(&models)).count();
        let mut inner = InnerArchives::default();
        let mut sections = Vec::new();
        for (folder, ending, apart) in SECTIONS {
            let folder = archive.in_root(folder);
            for index in 0..archive.entries().len() {
                let Some(name) = archive.name(&archive.entries()[index]).strip_prefix(&folder[..]) else {
                    continue;
                };
                let name = String::from_utf8_lossy(name).into_owned();
                // The archives of several models name them; that of one does not.
                let path = |model: &str| {
                    let model = (models > 1).then_some(model);
                    model.into_iter().chain(apart).map(str::to_owned).collect::<Vec<_>>()
                };
                if let Some(model) = name.strip_suffix(".pt") {
                    inner.add(archive, index, path(model), limits)?;
                } else if let Some(model) = name.strip_suffix(ending).filter(|_| !ending.is_empty()) {
                    let record = archive.shown_name(index);
                    let json = self.read_text(archive, index, limits)?;
                    let config: Pt2Config = parse_json(&record, &json)?;
                    let pickled = read_pickled(archive, &config, &folder, &path(model), &mut inner, limits)?;
                    sections.push(Section {
                        record,
                        path: path(model),
                        folder: folder.clone(),
                        config,
                        pickled,
                    });
                }
            }
        }
        let compiled = Compiled::read(archive, models > 0, &mut inner, &mut self.text, limits)?;
        if sections.is_empty() && inner.is_empty() && compiled.is_empty() {
            return Err(match compiled.has_code() {
                true => Error::CompiledOnly,
                false => Error::UnsupportedContainer { container: Container::Pt2 },
            });
        }
        self.text.extend_from_slice(&inner.text);
        self.tree = Tree::new(std::mem::take(&mut inner.text).into());
        for Section { record, path, folder, config, pickled } in sections {
            let mut pairs = Vec::new();
            for ((name, entry), pickled) in config.config.0.into_iter().zip(pickled) {
                let key = self.tree.keep_str(&name);
                let value = match (entry.tensor_meta, pickled) {
                    // It has a root of its own.
                    (_, Pickled::Read) => continue,
                    (None, _) => Raw::None,
                    (Some(meta), Pickled::Broken(name)) => {
                        meta.described(name, 0, entry.is_param).call(&mut self.tree)
                    }
                    (Some(meta), Pickled::No) => {
                        let stored = archive.find(&[&folder[..], entry.path_name.as_bytes()].concat());
                        let bytes = stored.map_or(0, |index| archive.entries()[index].size);
                        meta.described(entry.path_name, bytes, entry.is_param).call(&mut self.tree)
                    }
                };
                pairs.extend([key, value]);
            }
            add_root(&mut self.tree, record, path, &pairs);
            self.folders.push(Folder::new(folder, b""));
        }
        self.run_inner(inner, limits)?;
        compiled.name_views(&mut self.tree, &mut self.folders);
        Ok(())
    }

    /// Torch 2.1 to 2.7: whole checkpoints at the top of the archive, without a folder around them.
    fn read_old_pt2<S: Source + ?Sized>(&mut self, archive: &Archive<'_, S>, limits: &Limits) -> Result<()> {
        // The first release called them JSON, which they never were.
        const RECORDS: [(&str, Option<&str>); 5] = [
            ("serialized_state_dict.pt", None),
            ("serialized_state_dict.json", None),
            ("serialized_constants.pt", Some(CONSTANTS)),
            ("serialized_constants.json", Some(CONSTANTS)),
            ("serialized_example_inputs.pt", Some(SAMPLE_INPUTS)),
        ];
        let mut inner = InnerArchives::default();
        for (record, apart) in RECORDS {
            if let Some(index) = archive.find(record.as_bytes()) {
                inner.add(archive, index, apart.into_iter().map(str::to_owned).collect(), limits)?;
            }
        }
        self.text.extend_from_slice(&inner.text);
        self.tree = Tree::new(std::mem::take(&mut inner.text).into());
        self.run_inner(inner, limits)
    }

    fn run_inner(&mut self, mut inner: InnerArchives, limits: &Limits) -> Result<()> {
        let tree = std::mem::replace(&mut self.tree, Tree::new(Vec::new().into()));
        self.tree = inner.run(tree, &mut self.folders, limits)?;
        self.inner = inner.records;
        Ok(())
    }

    /// `model.json` of torch 1.0: a tree of modules, whose parameters are numbers of tensors.
    fn read_model_json<S: Source + ?Sized>(
        &mut self,
        archive: &Archive<'_, S>,
        index: usize,
        limits: &Limits,
    ) -> Result<()> {
        let record = archive.shown_name(index);
        let json = self.read_text(archive, index, limits)?;
        let model: ModelJson = parse_json(&record, &json)?;
        let mut pairs = Vec::new();
        // JSON nests no deeper than its parser allows, so neither does this.
        let mut todo = vec![(String::new(), &model.main_module)];
        while let Some((prefix, module)) = todo.pop() {
            for parameter in &module.parameters {
                let name = format!("{prefix}{}", parameter.name);
                let number = usize::try_from(parameter.tensor_id.0).ok();
                let tensor = number.and_then(|number| model.tensors.get(number));
                let tensor =
                    tensor.ok_or_else(|| json_error(&record, format!("parameter `{name}` has no tensor")))?;
                let stored = archive.find_in_root(&tensor.data.key);
                let bytes = stored.map_or(0, |index| archive.entries()[index].size);
                let described = Described {
                    key: tensor.data.key.clone(),
                    bytes,
                    dtype: caffe2_dtype(&tensor.data_type).unwrap_or(&tensor.data_type).to_owned(),
                    sizes: tensor.dims.iter().map(|size| size.0).collect(),
                    strides: tensor.strides.iter().map(|stride| stride.0).collect(),
                    offset: tensor.offset.0,
                    requires_grad: tensor.requires_grad,
                    is_parameter: !parameter.is_buffer,
                };
                pairs.extend([self.tree.keep_str(&name), described.call(&mut self.tree)]);
            }
            let inner = module.submodules.iter().rev();
            todo.extend(inner.map(|inner| (format!("{prefix}{}.", inner.name), inner)));
        }
        add_root(&mut self.tree, record, Vec::new(), &pairs);
        self.folders.push(Folder::new(archive.in_root(""), b""));
        Ok(())
    }

    fn read_text<S: Source + ?Sized>(
        &mut self,
        archive: &Archive<'_, S>,
        index: usize,
        limits: &Limits,
    ) -> Result<Vec<u8>> {
        let left = limits.pickle_bytes.saturating_sub(self.text.len() as u64);
        let text = archive.read_record(index, left)?.into_owned();
        self.text.extend_from_slice(&text);
        Ok(text)
    }
}

/// A description of the tensors of one model.
struct Section {
    record: String,
    path: Vec<String>,
    folder: Vec<u8>,
    config: Pt2Config,
    /// For each tensor.
    pickled: Vec<Pickled>,
}

/// Whether a tensor is pickled instead of described: a subclass.
enum Pickled {
    No,
    Read,
    /// It cannot be read; the name of the storage that says so.
    Broken(String),
}

/// Reads the tensors of a description that are archives of their own.
fn read_pickled<S: Source + ?Sized>(
    archive: &Archive<'_, S>,
    config: &Pt2Config,
    folder: &[u8],
    path: &[String],
    inner: &mut InnerArchives,
    limits: &Limits,
) -> Result<Vec<Pickled>> {
    let mut pickled = Vec::with_capacity(config.config.0.len());
    for (name, entry) in &config.config.0 {
        // Objects that are no tensors of torch's own are pickled in other ways.
        if !entry.use_pickle || entry.path_name.starts_with(OPAQUE_OBJECT) {
            pickled.push(Pickled::No);
            continue;
        }
        let record = [folder, entry.path_name.as_bytes()].concat();
        let path = [path, std::slice::from_ref(name)].concat();
        let read = match archive.find(&record) {
            Some(index) => inner.add(archive, index, path, limits),
            None => Err(Error::Record {
                record: String::from_utf8_lossy(&record).into_owned(),
                fault: Fault::MissingRecord { record: entry.path_name.clone() },
            }),
        };
        pickled.push(match read {
            Ok(()) => Pickled::Read,
            Err(Error::Record { fault, .. }) => {
                // No record has a name that ends so.
                let name = format!("{}/", entry.path_name);
                inner.records.note([folder, name.as_bytes()].concat(), Err(fault));
                Pickled::Broken(name)
            }
            Err(error) => return Err(error),
        });
    }
    Ok(pickled)
}

/// A tensor in words that need no pickle.
struct Described {
    key: String,
    /// Length of its storage.
    bytes: u64,
    dtype: String,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
    requires_grad: bool,
    is_parameter: bool,
}

impl Described {
    /// `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype)`, in `_rebuild_parameter` if it is one.
    fn call(&self, tree: &mut Tree<'_>) -> Raw {
        let fields = [
            tree.keep_str("storage"),
            tree.add_global("torch", "UntypedStorage", Known::Storage),
            tree.keep_str(&self.key),
            tree.keep_str("cpu"),
            Raw::Int(i64::try_from(self.bytes).unwrap_or(-1)),
        ];
        let id = tree.add_tuple(&fields);
        let storage = tree.add_persistent(id);
        let counts = |counts: &[i64]| counts.iter().map(|&count| Raw::Int(count)).collect::<Vec<_>>();
        let sizes = tree.add_tuple(&counts(&self.sizes));
        let strides = tree.add_tuple(&counts(&self.strides));
        let dtype = tree.add_global("torch", &self.dtype, Known::DType);
        let requires_grad = Raw::Bool(self.requires_grad);
        let args = [storage, Raw::Int(self.offset), sizes, strides, requires_grad, Raw::None, dtype];
        let tensor = tree.add_call("torch._utils", "_rebuild_tensor_v3", Known::RebuildTensorV3, &args);
        if !self.is_parameter {
            return tensor;
        }
        let args = [tensor, requires_grad, Raw::None];
        tree.add_call("torch._utils", "_rebuild_parameter", Known::RebuildParameter, &args)
    }
}

fn add_root(tree: &mut Tree<'_>, record: String, path: Vec<String>, pairs: &[Raw]) {
    let value = tree.add_dict(pairs);
    let path = path.iter().map(|component| tree.keep_str(component)).collect();
    tree.roots.push(Root { path, ..Root::new(value, record) });
}

#[derive(Deserialize)]
struct Pt2Config {
    config: Pairs<Pt2Entry>,
}

#[derive(Deserialize)]
struct Pt2Entry {
    path_name: String,
    #[serde(default)]
    is_param: bool,
    #[serde(default)]
    use_pickle: bool,
    tensor_meta: Option<Pt2Meta>,
}

#[derive(Deserialize)]
struct Pt2Meta {
    dtype: u32,
    sizes: Vec<Pt2Int>,
    strides: Vec<Pt2Int>,
    storage_offset: Pt2Int,
    #[serde(default)]
    requires_grad: bool,
}

/// A number, or an expression with a number as a hint.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Pt2Int {
    AsInt(i64),
    AsExpr { hint: Option<Box<Pt2Int>> },
}

impl Pt2Int {
    /// An unknown number is no number a tensor can have.
    fn value(&self) -> i64 {
        match self {
            Self::AsInt(value) => *value,
            Self::AsExpr { hint } => match hint.as_deref() {
                Some(Self::AsInt(value)) => *value,
                _ => -1,
            },
        }
    }
}

impl Pt2Meta {
    fn described(&self, key: String, bytes: u64, is_parameter: bool) -> Described {
        Described {
            key,
            bytes,
            dtype: pt2_dtype(self.dtype)
                .map_or_else(|| format!("<export dtype {}>", self.dtype), str::to_owned),
            sizes: self.sizes.iter().map(Pt2Int::value).collect(),
            strides: self.strides.iter().map(Pt2Int::value).collect(),
            offset: self.storage_offset.value(),
            requires_grad: self.requires_grad,
            is_parameter,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelJson {
    main_module: ModelModule,
    #[serde(default)]
    tensors: Vec<ModelTensor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelModule {
    #[serde(default)]
    name: String,
    #[serde(default)]
    parameters: Vec<ModelParameter>,
    #[serde(default)]
    submodules: Vec<ModelModule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelParameter {
    name: String,
    #[serde(default)]
    is_buffer: bool,
    tensor_id: Decimal,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ModelTensor {
    #[serde(default)]
    dims: Vec<Decimal>,
    #[serde(default)]
    offset: Decimal,
    #[serde(default)]
    strides: Vec<Decimal>,
    #[serde(default)]
    requires_grad: bool,
    data_type: String,
    data: ModelData,
}

#[derive(Deserialize)]
struct ModelData {
    key: String,
}

/// A 64-bit number, which protobuf's JSON writes as a string.
#[derive(Clone, Copy, Default)]
struct Decimal(i64);

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(i64),
            Text(String),
        }
        match Either::deserialize(deserializer)? {
            Either::Number(value) => Ok(Self(value)),
            Either::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

/// A JSON object in its order, in which no key may occur twice.
pub(super) struct Pairs<T>(pub(super) Vec<(String, T)>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairsVisitor<T>(PhantomData<T>);

        impl<'de, T: DeserializeOwned> Visitor<'de> for PairsVisitor<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                let mut seen = HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom(format_args!("key `{key}` occurs twice")));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

pub(super) fn parse_json<T: DeserializeOwned>(record: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| json_error(record, error.to_string()))
}

fn from_json<T: DeserializeOwned>(record: &str, json: Json) -> Result<T> {
    serde_json::from_value(json).map_err(|error| json_error(record, error.to_string()))
}

fn json_error(record: &str, problem: String) -> Error {
    Error::Record { record: record.to_owned(), fault: Fault::Json { problem } }
}

/// Source: the safetensors crate's `Dtype`.
fn safetensors_dtype(name: &str) -> Option<&'static str> {
    Some(match name {
        "F64" => "float64",
        "F32" => "float32",
        "F16" => "float16",
        "BF16" => "bfloat16",
        "I64" => "int64",
        "I32" => "int32",
        "I16" => "int16",
        "I8" => "int8",
        "U64" => "uint64",
        "U32" => "uint32",
        "U16" => "uint16",
        "U8" => "uint8",
        "BOOL" => "bool",
        "C64" => "complex64",
        "F8_E4M3" => "float8_e4m3fn",
        "F8_E5M2" => "float8_e5m2",
        "F8_E4M3FNUZ" => "float8_e4m3fnuz",
        "F8_E5M2FNUZ" => "float8_e5m2fnuz",
        "F8_E8M0" => "float8_e8m0fnu",
        _ => return None,
    })
}

/// The export schema's own numbers. Source: `torch/_export/serde/schema.py`, `ScalarType`.
fn pt2_dtype(code: u32) -> Option<&'static str> {
    Some(match code {
        1 => "uint8",
        2 => "int8",
        3 => "int16",
        4 => "int32",
        5 => "int64",
        6 => "float16",
        7 => "float32",
        8 => "float64",
        9 => "complex32",
        10 => "complex64",
        11 => "complex128",
        12 => "bool",
        13 => "bfloat16",
        28 => "uint16",
        29 => "float8_e4m3fn",
        30 => "float8_e5m2",
        31 => "float8_e4m3fnuz",
        32 => "float8_e5m2fnuz",
        33 => "float8_e8m0fnu",
        34 => "uint32",
        35 => "uint64",
        _ => return None,
    })
}

/// Source: `caffe2/proto/caffe2.proto`, `TensorProto.DataType`.
fn caffe2_dtype(name: &str) -> Option<&'static str> {
    Some(match name {
        "FLOAT" => "float32",
        "DOUBLE" => "float64",
        "FLOAT16" => "float16",
        "INT64" => "int64",
        "INT32" => "int32",
        "INT16" => "int16",
        "INT8" => "int8",
        "UINT8" => "uint8",
        "BOOL" => "bool",
        _ => return None,
    })
}
