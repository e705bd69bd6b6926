//! Containers that describe their tensors in JSON: safetensors, `.pt2` of torch 2.8 and newer, TorchScript of 1.0 to 1.3.
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
use crate::container::legacy::LegacyRecords;
use crate::container::pickles::{Folder, read_byte_order};
use crate::container::{Archive, Container};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::geometry;
use crate::limits::Limits;
use crate::pickle::{Known, Raw, Root, Tree};
use crate::source::{Source, read};

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
    /// The JSON, for the fingerprint.
    pub(crate) text: Vec<u8>,
}

impl DescribedArchive {
    /// Reads the descriptions, or returns `None` when the archive holds a pickle instead.
    ///
    /// # Errors
    /// [`Error::Json`] when a description is malformed.
    pub(crate) fn read<S: Source + ?Sized>(
        archive: &Archive<'_, S>,
        limits: &Limits,
    ) -> Result<Option<Self>> {
        let mut described = Self {
            container: Container::Pt2,
            byte_order: ByteOrder::Little,
            tree: Tree::new(Vec::new().into()),
            folders: Vec::new(),
            text: Vec::new(),
        };
        if archive.find_in_root("archive_format").is_some() {
            described.byte_order = read_byte_order(archive)?;
            described.read_pt2(archive, limits)?;
        } else if let Some(index) = archive.find_in_root("model.json") {
            described.container = Container::TorchScript;
            described.read_model_json(archive, index, limits)?;
        } else {
            return Ok(None);
        }
        Ok(Some(described))
    }

    /// `data/weights/<model>_weights_config.json` and its like for constants.
    fn read_pt2<S: Source + ?Sized>(&mut self, archive: &Archive<'_, S>, limits: &Limits) -> Result<()> {
        const SECTIONS: [(&str, &str); 2] =
            [("data/weights/", "_weights_config.json"), ("data/constants/", "_constants_config.json")];
        for (folder, ending) in SECTIONS {
            let prefix = archive.in_root(folder);
            let is_config = |name: &[u8]| name.starts_with(&prefix) && name.ends_with(ending.as_bytes());
            let configs: Vec<usize> = (0..archive.entries().len())
                .filter(|&index| is_config(archive.name(&archive.entries()[index])))
                .collect();
            for &index in &configs {
                let record = archive.shown_name(index);
                let json = self.read_text(archive, index, limits)?;
                let config: Pt2Config = parse_json(&record, &json)?;
                // The archives of several models name them; that of one does not.
                let model = record.rsplit('/').next().unwrap_or_default().trim_end_matches(ending).to_owned();
                let path = if configs.len() > 1 { vec![model] } else { Vec::new() };
                let mut pairs = Vec::new();
                for (name, entry) in config.config.0 {
                    let key = self.tree.keep_str(&name);
                    let value = match entry.tensor_meta {
                        None => Raw::None,
                        Some(meta) => {
                            let stored = archive.find(&[&prefix[..], entry.path_name.as_bytes()].concat());
                            let bytes = stored.map_or(0, |index| archive.entries()[index].size);
                            meta.described(entry.path_name, bytes, entry.is_param).call(&mut self.tree)
                        }
                    };
                    pairs.extend([key, value]);
                }
                add_root(&mut self.tree, record, path, &pairs);
                self.folders.push(Folder::new(prefix.clone(), b""));
            }
        }
        match self.folders.len() {
            // Older ones keep whole checkpoints in `data/weights/`.
            0 => Err(Error::UnsupportedContainer { container: Container::Pt2 }),
            _ => Ok(()),
        }
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
    tree.roots.push(Root { value, record, path, is_constants: false });
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
struct Pairs<T>(Vec<(String, T)>);

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

fn parse_json<T: DeserializeOwned>(record: &str, bytes: &[u8]) -> Result<T> {
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
