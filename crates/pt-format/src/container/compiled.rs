//! Weights that AOTInductor packs beside compiled code: `data/aotinductor/<model>/weights_config.json` of a `.pt2` file.
//!
//! ```text
//! {"l.weight": ["weight_0", [4, 3], [3, 1], 0], …}      file, shape, stride, offset in elements
//! ```
//!
//! Each file is an archive of `torch.save` with one tensor, of which the weights are views, as of `Tensor.as_strided`: models
//! and names that share memory share a file. So once its pickle was run, the tensor in it gives way to a dict of calls
//! like its own, with other numbers.
//!
//! Source: `_package_aoti_files` and `load_pt2` in `torch/export/pt2_archive/_package.py`.

use std::collections::{HashMap, HashSet};

use crate::container::Archive;
use crate::container::described::{Pairs, parse_json};
use crate::container::inner::InnerArchives;
use crate::container::pickles::Folder;
use crate::error::{Error, Result};
use crate::fault::{Fault, shortened};
use crate::limits::Limits;
use crate::pickle::{Known, Node, Raw, Root, Tree};
use crate::source::Source;

/// Put in front of the names where the archive also has models with weights of their own.
const AOTINDUCTOR: &str = "AOTINDUCTOR";
/// Where compiled models lie.
const MODELS: &str = "data/aotinductor/";
/// Where their weights do.
const WEIGHTS: &str = "data/weights/";
const CONFIG: &str = "/weights_config.json";
/// Arguments of a rebuild call behind the stride. Honest ones have four.
const ARGUMENTS_MAX: usize = 8;

/// The weights of compiled models, and the archives they are views into.
#[derive(Default)]
pub(super) struct Compiled {
    views: Vec<View>,
    /// What stands in front of the names of each model.
    paths: Vec<Vec<String>>,
    /// Archives read so far, by number of the record: how many were read before it, or why it is none.
    files: HashMap<usize, Result<usize, Fault>>,
    files_read: usize,
    /// There is compiled code, with weights or without.
    has_code: bool,
}

/// A view of the tensor in a file.
struct View {
    /// Number of the model.
    model: usize,
    name: String,
    file: Result<usize, Fault>,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: i64,
}

/// File, shape, stride, offset.
type Place = (String, Vec<i64>, Vec<i64>, i64);

impl Compiled {
    /// Finds the weights of all compiled models, and reads the archives they lie in. `text` gets the descriptions.
    ///
    /// # Errors
    /// [`Error::Record`] when a description is malformed, or a record of one cannot be read; of archives only
    /// [`Error::Limit`] and [`Error::Read`]: others are faults of the tensors in them.
    pub(super) fn read<S: Source + ?Sized>(
        archive: &Archive<'_, S>,
        is_beside_models: bool,
        inner: &mut InnerArchives,
        text: &mut Vec<u8>,
        limits: &Limits,
    ) -> Result<Self> {
        let mut compiled = Self::default();
        let folder = archive.in_root(MODELS);
        let mut models = HashSet::new();
        let mut configs = Vec::new();
        for (index, entry) in archive.entries().iter().enumerate() {
            let Some(name) = archive.name(entry).strip_prefix(&folder[..]) else { continue };
            let model = name.split(|&byte| byte == b'/').next().unwrap_or_default();
            models.insert(model);
            if name.strip_prefix(model) == Some(CONFIG.as_bytes()) {
                configs.push((index, model));
            }
        }
        compiled.has_code = !models.is_empty();
        for (index, model) in configs {
            let left = limits.pickle_bytes.saturating_sub(text.len() as u64);
            let json = archive.read_record(index, left)?;
            let weights: Pairs<Place> = parse_json(&archive.shown_name(index), &json)?;
            text.extend_from_slice(&json);
            // As elsewhere: the archives of several models name them.
            let name = (models.len() > 1).then(|| String::from_utf8_lossy(model).into_owned());
            let apart = is_beside_models.then(|| AOTINDUCTOR.to_owned());
            compiled.paths.push(name.into_iter().chain(apart).collect());
            let beside = [&folder[..], model, b"/"].concat();
            for (name, (file, sizes, strides, offset)) in weights.0 {
                let file = compiled.file(archive, &file, &beside, inner, limits)?;
                let model = compiled.paths.len() - 1;
                compiled.views.push(View { model, name, file, sizes, strides, offset });
            }
        }
        Ok(compiled)
    }

    /// Returns how many files were read before this one. torch looks among the weights; `beside` is the folder of the model.
    fn file<S: Source + ?Sized>(
        &mut self,
        archive: &Archive<'_, S>,
        file: &str,
        beside: &[u8],
        inner: &mut InnerArchives,
        limits: &Limits,
    ) -> Result<Result<usize, Fault>> {
        let name = [&archive.in_root(WEIGHTS)[..], file.as_bytes()].concat();
        let found = archive.find(&name).or_else(|| archive.find(&[beside, file.as_bytes()].concat()));
        let Some(index) = found else {
            let record = shortened(&String::from_utf8_lossy(&name));
            return Ok(Err(Fault::MissingRecord { record }));
        };
        if let Some(file) = self.files.get(&index) {
            return Ok(file.clone());
        }
        let parts = inner.len();
        let file = match inner.add(archive, index, Vec::new(), limits) {
            Ok(()) if inner.len() == parts + 1 => {
                self.files_read += 1;
                Ok(self.files_read - 1)
            }
            Ok(()) => Err(Fault::Nested { problem: "it is empty".into() }),
            // Many views may share it.
            Err(Error::Record { record, fault: Fault::Nested { problem } }) => {
                Err(Fault::Nested { problem: shortened(&format!("record `{record}`: {problem}")) })
            }
            Err(Error::Record { record, fault }) => Err(Fault::Record { record, fault: Box::new(fault) }),
            Err(error) => return Err(error),
        };
        self.files.insert(index, file.clone());
        Ok(file)
    }

    /// Returns whether no model says where its weights are.
    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Returns whether there is compiled code.
    pub(super) fn has_code(&self) -> bool {
        self.has_code
    }

    /// Puts the views in the place of the tensors in the files, whose pickles left the last roots.
    pub(super) fn name_views(self, tree: &mut Tree<'_>, folders: &mut Vec<Folder>) {
        let first = tree.roots.len() - self.files_read;
        let files = tree.roots.split_off(first);
        let folders_of_files = folders.split_off(first);
        // A dict for each file of each model: a pickle's storages are all in one folder.
        let mut dicts: Vec<(usize, Option<usize>, Vec<Raw>)> = Vec::new();
        let mut by_file: HashMap<(usize, Option<usize>), usize> = HashMap::new();
        for view in self.views {
            let (file, value) = match &view.file {
                Ok(file) => (Some(*file), view.of(tree, files[*file].value)),
                Err(fault) => (None, view.broken(tree, fault.clone())),
            };
            let dict = *by_file.entry((view.model, file)).or_insert(dicts.len());
            if dict == dicts.len() {
                dicts.push((view.model, file, Vec::new()));
            }
            dicts[dict].2.extend([tree.keep_str(&view.name), value]);
        }
        let paths: Vec<Vec<Raw>> =
            self.paths.iter().map(|path| path.iter().map(|name| tree.keep_str(name)).collect()).collect();
        for (model, file, pairs) in dicts {
            let value = tree.add_dict(&pairs);
            let path = paths[model].clone();
            let (record, byte_order, folder) = match file {
                Some(file) => {
                    (files[file].record.clone(), files[file].byte_order, folders_of_files[file].clone())
                }
                None => (CONFIG.to_owned(), None, Folder::new(Vec::new(), b"")),
            };
            tree.roots.push(Root { path, byte_order, ..Root::new(value, record) });
            folders.push(folder);
        }
    }
}

impl View {
    /// Makes the call that makes this view, after that of the whole tensor. What is no tensor over one storage stays as it is.
    fn of(&self, tree: &mut Tree<'_>, whole: Raw) -> Raw {
        let call = |tree: &Tree<'_>, value: Raw| match tree.node(value.node()?) {
            Node::Object { callable, args, .. } => Some((callable, tree.known(callable), args)),
            _ => None,
        };
        let mut made = call(tree, whole);
        if made.is_none() {
            let problem = "it holds something else than a tensor".into();
            return self.broken(tree, Fault::Nested { problem });
        }
        if let Some((_, Known::RebuildParameter, args)) = made {
            made = tree.args(args).first().and_then(|&data| call(tree, data));
        }
        let Some((callable, known, args)) = made else { return whole };
        let is_window = matches!(
            known,
            Known::RebuildTensor | Known::RebuildTensorV2 | Known::RebuildTensorV3 | Known::RebuildQTensor
        );
        let &[storage, offset, size, stride, ref rest @ ..] = tree.args(args) else { return whole };
        let same = |counts: &[i64], value: Raw| {
            let items = tree.elements(value).into_iter().flatten();
            items.map(|item| if let Raw::Int(item) = item { item } else { -1 }).eq(counts.iter().copied())
        };
        let is_whole = matches!(offset, Raw::Int(offset) if offset == self.offset)
            && same(&self.sizes, size)
            && same(&self.strides, stride);
        if !is_window || is_whole {
            return whole;
        }
        let rest = rest[..rest.len().min(ARGUMENTS_MAX)].to_vec();
        let [sizes, strides] = self.dims(tree);
        let args = [&[storage, Raw::Int(self.offset), sizes, strides][..], &rest].concat();
        let args = tree.add_tuple(&args).node();
        args.map_or(whole, |args| tree.add_object(callable, args))
    }

    /// A tensor whose storage nobody knows: its dtype would be in the file.
    fn broken(&self, tree: &mut Tree<'_>, fault: Fault) -> Raw {
        let storage = tree.add_call("torch", "UntypedStorage", Known::Other, &[]);
        tree.broken.extend(storage.node().map(|node| (node, fault)));
        let [sizes, strides] = self.dims(tree);
        let args = [storage, Raw::Int(self.offset), sizes, strides, Raw::Bool(false), Raw::None];
        tree.add_call("torch._utils", "_rebuild_tensor_v2", Known::RebuildTensorV2, &args)
    }

    fn dims(&self, tree: &mut Tree<'_>) -> [Raw; 2] {
        [&self.sizes, &self.strides].map(|counts| {
            let counts: Vec<Raw> = counts.iter().map(|&count| Raw::Int(count)).collect();
            tree.add_tuple(&counts)
        })
    }
}
