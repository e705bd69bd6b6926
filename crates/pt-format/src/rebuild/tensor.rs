//! One call of a rebuild function to one tensor.
//!
//! Source: the functions of the same names in `torch/_utils.py`, `torch/_tensor.py` and
//! `torch/nested/_internal/nested_tensor.py`.

use crate::checkpoint::ByteOrder;
use crate::dtype::DType;
use crate::fault::Fault;
use crate::geometry;
use crate::limits::Limits;
use crate::pickle::{Known, Node, NodeId, Raw, Run, SHAPES_FROM_NODES, Tree};
use crate::rebuild::array::Array;
use crate::rebuild::storage::{StorageTable, StorageUse, count, storage_class};
use crate::rebuild::walk::Component;
use crate::tensor::{Details, Flags, Layout, Quantizer};

/// Rebuild calls around one another: parameter of a subclass of a device tensor. Honest files stop at 3.
const WRAPPERS_MAX: usize = 16;

/// An index holds ranks in a byte, of which one value means "none".
const RANK_MAX: usize = 254;
/// Entries of a dict that are looked at for each tensor. Honest ones have a dozen.
const METADATA_ENTRIES_MAX: usize = 64;
/// Thousands of tensors have a few shapes between them.
const SHAPES_KEPT: usize = 64;

/// What a rebuild call says, before it has a name.
pub(crate) struct Parsed {
    pub(crate) dtype: Option<DType>,
    pub(crate) layout: Layout,
    pub(crate) flags: Flags,
    /// First of the sizes in [`Rebuilder::dims`].
    pub(crate) dims_start: usize,
    /// How many there are; strides follow for layouts that have them.
    pub(crate) rank: Option<u16>,
    pub(crate) storage: Option<u32>,
    pub(crate) storage_offset: u64,
    pub(crate) class: Option<NodeId>,
    details: Option<Box<Details>>,
}

impl Parsed {
    /// What few tensors have; asked for by those that have some of it.
    fn details(&mut self) -> &mut Details {
        self.details.get_or_insert_default()
    }

    /// Python attributes of the tensor: the outermost call that has a state decides.
    fn or_state(&mut self, state: Option<Raw>) {
        if let Some(state) = state {
            self.details().state.get_or_insert(state);
        }
    }

    fn state(&self) -> Option<Raw> {
        self.details.as_ref()?.state
    }

    /// Hands over what this one has of what few tensors have.
    pub(crate) fn take_details(&mut self) -> Option<Box<Details>> {
        let mut details = self.details.take()?;
        details.state = details.state.filter(|state| !matches!(state, Raw::None));
        let Details { fault, quantizer, coalesced, state, parts } = &*details;
        let any = fault.is_some()
            || quantizer.is_some()
            || coalesced.is_some()
            || state.is_some()
            || !parts.is_empty();
        any.then_some(details)
    }
}

/// Sizes and strides as they stand among the items of the tree, and among the dims.
#[derive(Clone, Copy, Default)]
struct Shape {
    size: Run,
    stride: Run,
    dims_start: usize,
    /// 0 where there is none: a tuple without items costs nothing.
    rank: u16,
}

/// A call as the pickle made it: the function, its arguments, and states set on the result.
pub(crate) struct Call<'t> {
    callable: NodeId,
    pub(crate) known: Known,
    pub(crate) args: &'t [Raw],
    pub(crate) state: Option<Raw>,
    /// The object it makes, or is a part of.
    node: NodeId,
}

/// Reads rebuild calls.
pub(crate) struct Rebuilder<'t, 's, 'r> {
    pub(crate) tree: &'t Tree<'s>,
    pub(crate) storages: StorageTable<'r>,
    pub(crate) limits: &'t Limits,
    /// Of the file's storages.
    pub(crate) byte_order: ByteOrder,
    /// Sizes and strides of all tensors; those of some are also those of others.
    pub(crate) dims: Vec<u64>,
    /// Lately met, by a hash of where they stand; none in a tree of few nodes.
    shapes: Vec<Shape>,
}

impl<'t, 's, 'r> Rebuilder<'t, 's, 'r> {
    pub(crate) fn new(
        tree: &'t Tree<'s>,
        storages: StorageTable<'r>,
        limits: &'t Limits,
        byte_order: ByteOrder,
    ) -> Self {
        let shapes = if tree.nodes.len() < SHAPES_FROM_NODES { 0 } else { SHAPES_KEPT };
        let shapes = vec![Shape::default(); shapes];
        Self { tree, storages, limits, byte_order, dims: Vec::new(), shapes }
    }

    /// Returns the tensor an object stands for, or `None` when it is no tensor.
    pub(crate) fn tensor(&mut self, node: NodeId) -> Option<Parsed> {
        let mut call = self.call(node)?;
        if !is_tensor(self.tree, &call) {
            return None;
        }
        let mut parsed = Parsed {
            dtype: None,
            layout: Layout::Strided,
            flags: Flags::default(),
            dims_start: self.dims.len(),
            rank: None,
            storage: None,
            storage_offset: 0,
            class: None,
            details: None,
        };
        let mut requires_grad = None;
        let mut converted = None;
        for _ in 0..WRAPPERS_MAX {
            let inner = match call.known {
                Known::RebuildParameter | Known::RebuildParameterWithState => {
                    parsed.flags.set(Flags::PARAMETER, true);
                    requires_grad = requires_grad.or(call.args.get(1).copied());
                    parsed.or_state(call.args.get(3).copied());
                    call.args.first().and_then(|data| self.call(data.node()?))
                }
                Known::Parameter | Known::Variable => {
                    let state = self.elements(call.state);
                    let (data, grad) = match state[..] {
                        [data, _, _, grad, _] => (Some(data), Some(grad)),
                        [grad, ..] => (call.args.first().copied(), Some(grad)),
                        _ => {
                            (call.args.first().copied(), call.args.get(1).copied().or(Some(Raw::Bool(true))))
                        }
                    };
                    parsed.flags.set(Flags::PARAMETER, call.known == Known::Parameter);
                    requires_grad = requires_grad.or(grad);
                    data.and_then(|data| self.call(data.node()?))
                }
                Known::RebuildDeviceFromCpu => {
                    requires_grad = requires_grad.or(call.args.get(3).copied());
                    call.args.first().and_then(|data| self.call(data.node()?))
                }
                Known::RebuildDeviceFromNumpy => {
                    converted = call.args.get(1).copied();
                    requires_grad = requires_grad.or(call.args.get(3).copied());
                    call.args.first().and_then(|data| self.call(data.node()?))
                }
                Known::RebuildFromType | Known::RebuildFromTypeV2 => {
                    let &[function, class, args, ref state @ ..] = call.args else {
                        parsed.details().fault =
                            Some(arguments("_rebuild_from_type", "fewer than 3 arguments"));
                        break;
                    };
                    parsed.class = class.node().filter(|&class| self.tree.known(class) != Known::TensorClass);
                    parsed.or_state(state.first().copied());
                    if let Some(flag) = parsed.state().and_then(|state| self.field(state, b"_is_param")) {
                        parsed.flags.set(Flags::PARAMETER, matches!(flag, Raw::Bool(true)));
                    }
                    function.node().zip(args.node()).map(|(function, args)| Call {
                        callable: function,
                        known: self.tree.known(function),
                        args: self.tree.args(args),
                        state: None,
                        node: call.node,
                    })
                }
                _ => {
                    if let Err(fault) = self.fill(&mut parsed, &call) {
                        parsed.details().fault = Some(fault);
                    }
                    break;
                }
            };
            match inner {
                Some(inner) if is_tensor(self.tree, &inner) => call = inner,
                _ => {
                    parsed.details().fault = Some(Fault::Malformed {
                        what: "the object to rebuild it from",
                        problem: "no tensor",
                    });
                    break;
                }
            }
        }
        if let Some(dtype) = converted {
            self.convert(&mut parsed, dtype);
        }
        if let Some(flag) = requires_grad {
            parsed.flags.set(Flags::REQUIRES_GRAD, truthy(flag));
        }
        Some(parsed)
    }

    fn call(&self, node: NodeId) -> Option<Call<'t>> {
        let Node::Object { callable, args, extra } = self.tree.node(node) else { return None };
        let state = self.tree.sequence(self.tree.extra(extra).states).last();
        Some(Call { callable, known: self.tree.known(callable), args: self.tree.args(args), state, node })
    }

    /// A tensor of a device that is saved as an array is one of another dtype once it is loaded.
    fn convert(&self, parsed: &mut Parsed, dtype: Raw) {
        parsed.flags.set(Flags::NUMPY, false);
        let fault = match self.dtype(dtype) {
            Ok(dtype) if parsed.dtype == Some(dtype) => return,
            Ok(dtype) => {
                parsed.dtype = Some(dtype);
                Fault::Malformed {
                    what: "the numpy array it is saved as",
                    problem: "of another dtype; load it with torch and save it again",
                }
            }
            Err(fault) => fault,
        };
        parsed.details().fault.get_or_insert(fault);
    }

    fn fill(&mut self, parsed: &mut Parsed, call: &Call<'t>) -> Result<(), Fault> {
        let args = call.args;
        match call.known {
            Known::RebuildTensorV2 => match *args {
                [storage, offset, size, stride, requires_grad, _, ref metadata @ ..] => {
                    parsed.flags.set(Flags::REQUIRES_GRAD, truthy(requires_grad));
                    self.metadata(parsed, metadata.first());
                    self.strided(parsed, storage, offset, size, stride, None)
                }
                _ => Err(arguments("_rebuild_tensor_v2", "fewer than 6 arguments")),
            },
            Known::RebuildTensorV3 => match *args {
                [storage, offset, size, stride, requires_grad, _, dtype, ref metadata @ ..] => {
                    parsed.flags.set(Flags::REQUIRES_GRAD, truthy(requires_grad));
                    self.metadata(parsed, metadata.first());
                    let dtype = self.dtype(dtype)?;
                    self.strided(parsed, storage, offset, size, stride, Some(dtype))
                }
                _ => Err(arguments("_rebuild_tensor_v3", "fewer than 7 arguments")),
            },
            Known::RebuildTensor => match *args {
                [storage, offset, size, stride, ..] => {
                    self.strided(parsed, storage, offset, size, stride, None)
                }
                _ => Err(arguments("_rebuild_tensor", "fewer than 4 arguments")),
            },
            Known::ArrayReconstruct | Known::ArrayFromBuffer | Known::ArrayScalar => {
                match Array::of(self.tree, call) {
                    Some(array) => self.array(parsed, &array, call.node),
                    None => Err(Fault::Malformed { what: "its array", problem: "one that no tensor can be" }),
                }
            }
            Known::TypedTensor | Known::TensorClass => match self.elements(call.state)[..] {
                [storage, offset, size, stride] => self.strided(parsed, storage, offset, size, stride, None),
                [] if call.state.is_none() => self.listed(parsed, call),
                _ => Err(Fault::Malformed {
                    what: "its state",
                    problem: "not (storage, offset, size, stride)",
                }),
            },
            Known::RebuildQTensor => match *args {
                [storage, offset, size, stride, quantizer, requires_grad, ..] => {
                    parsed.flags.set(Flags::REQUIRES_GRAD, truthy(requires_grad));
                    parsed.flags.set(Flags::QUANTIZED, true);
                    self.quantizer(parsed, quantizer)?;
                    self.strided(parsed, storage, offset, size, stride, None)
                }
                _ => Err(arguments("_rebuild_qtensor", "fewer than 6 arguments")),
            },
            Known::RebuildSparse | Known::RebuildSparseCsr => match *args {
                [layout, data, ..] => self.sparse(parsed, layout, data),
                _ => Err(arguments("_rebuild_sparse_tensor", "fewer than 2 arguments")),
            },
            Known::RebuildNested => match *args {
                [buffer, sizes, strides, offsets, ..] => {
                    parsed.layout = Layout::NestedStrided;
                    parsed.dtype = self.leaf_dtype(buffer);
                    parsed.details().parts = parts([
                        ("#buffer", buffer),
                        ("#sizes", sizes),
                        ("#strides", strides),
                        ("#offsets", offsets),
                    ]);
                    Ok(())
                }
                _ => Err(arguments("_rebuild_nested_tensor", "fewer than 4 arguments")),
            },
            Known::RebuildJagged => {
                let fields = *args.first().ok_or(arguments("_rebuild_njt", "no arguments"))?;
                let field = |name: &str| self.field(fields, name.as_bytes());
                let values = field("values").ok_or(arguments("_rebuild_njt", "no `values`"))?;
                parsed.layout = Layout::NestedJagged;
                parsed.dtype = self.leaf_dtype(values);
                parsed.flags.set(Flags::REQUIRES_GRAD, field("requires_grad").is_some_and(truthy));
                let details = parsed.details();
                details.state = None;
                details.parts = parts([("#values", values)]);
                for (part, name) in [("#offsets", "offsets"), ("#lengths", "lengths")] {
                    if let Some(value) = field(name).filter(|value| !matches!(value, Raw::None)) {
                        details.parts.push((Component::Fixed(part), value));
                    }
                }
                Ok(())
            }
            Known::RebuildMeta => match *args {
                [dtype, size, stride, requires_grad, ..] => {
                    parsed.flags.set(Flags::META, true);
                    parsed.flags.set(Flags::REQUIRES_GRAD, truthy(requires_grad));
                    parsed.dtype = Some(self.dtype(dtype)?);
                    self.dims(parsed, size, stride)
                }
                _ => Err(arguments("_rebuild_meta_tensor_no_storage", "fewer than 4 arguments")),
            },
            Known::RebuildWrapper => match *args {
                [_, dtype, size, stride, offset, _, _, requires_grad, ..] => {
                    parsed.layout = Layout::Wrapper;
                    parsed.flags.set(Flags::REQUIRES_GRAD, truthy(requires_grad));
                    parsed.dtype = Some(self.dtype(dtype)?);
                    parsed.storage_offset = count(self.tree, offset, "storage offset")?;
                    self.dims(parsed, size, stride)
                }
                _ => Err(arguments("_rebuild_wrapper_subclass", "fewer than 8 arguments")),
            },
            _ => Err(Fault::Malformed { what: "its rebuild function", problem: "not one for tensors" }),
        }
    }

    /// A window of shape and stride over a storage; `dtype` where the storage is untyped.
    fn strided(
        &mut self,
        parsed: &mut Parsed,
        storage: Raw,
        offset: Raw,
        size: Raw,
        stride: Raw,
        dtype: Option<DType>,
    ) -> Result<(), Fault> {
        // Size first: what is known stays listed even if the storage is not usable.
        let dims = self.dims(parsed, size, stride);
        let storage = self.storage(storage)?;
        if let Some(byte_order) = storage.byte_order {
            let wide = dtype.or(storage.dtype).is_some_and(|dtype| dtype.alignment() > 1);
            parsed.flags.set(Flags::SWAPPED, byte_order != self.byte_order && wide);
        }
        parsed.storage = Some(storage.index);
        parsed.dtype = dtype.or(storage.dtype).or(Some(DType::UInt8));
        dims?;
        if self.storages.is_hollow && self.storages.is_left_out(storage.index) {
            parsed.storage = None;
            parsed.flags.set(Flags::META, true);
            return Ok(());
        }
        parsed.storage_offset = count(self.tree, offset, "storage offset")?;

        let (Some(dtype), Some(rank)) = (parsed.dtype, parsed.rank) else { return Ok(()) };
        let (shape, stride) = self.dims[parsed.dims_start..][..2 * usize::from(rank)].split_at(rank.into());
        let overflow = || Fault::Overflow { what: "the tensor's extent" };
        geometry::numel(shape).ok_or(Fault::Overflow { what: "the number of elements" })?;
        let needs = match dtype.packing() {
            Some(per_byte) => geometry::packed_bytes(shape, per_byte).ok_or_else(overflow)?,
            None => match geometry::extent(shape, stride).ok_or_else(overflow)? {
                0 => 0,
                extent => extent
                    .checked_add(parsed.storage_offset)
                    .and_then(|elements| elements.checked_mul(dtype.itemsize() as u64))
                    .ok_or_else(overflow)?,
            },
        };
        if needs > storage.bytes {
            return Err(Fault::OutOfStorage { needs, has: storage.bytes });
        }
        Ok(())
    }

    /// The storage a value is: a persistent id, or a class called with a list of numbers.
    fn storage(&mut self, storage: Raw) -> Result<StorageUse, Fault> {
        let none = Fault::Malformed { what: "its storage", problem: "not a persistent id" };
        let Raw::Node(node) = storage else { return Err(none) };
        match self.tree.node(node) {
            Node::Persistent(id) => self.storages.storage(self.tree, self.tree.persistent_id(id)),
            Node::Object { callable, args, .. } if self.tree.known(callable) == Known::Storage => {
                let (Some(dtype), _) = storage_class(self.tree, callable)? else { return Err(none) };
                let &[Raw::Node(list)] = self.tree.args(args) else { return Err(none) };
                match self.storages.numbers(self.tree, list, dtype)? {
                    (storage, &[_]) => Ok(storage),
                    _ => Err(none),
                }
            }
            Node::Object { .. } => Err(self.storages.nested_fault(node).unwrap_or(none)),
            _ => Err(none),
        }
    }

    /// `torch.FloatTensor([[1.5, 2.0], …])`, as pickled before torch 0.2.
    fn listed(&mut self, parsed: &mut Parsed, call: &Call<'t>) -> Result<(), Fault> {
        let malformed = Fault::Malformed { what: "its content", problem: "no list of numbers" };
        let &[Raw::Node(list)] = call.args else { return Err(malformed) };
        parsed.dtype =
            self.tree.global(call.callable).and_then(|class| typed_dtype(self.tree.bytes(class.name)));
        let Some(dtype) = parsed.dtype else { return Err(malformed) };
        let (storage, shape) = self.storages.numbers(self.tree, list, dtype)?;
        let rank_max = self.limits.rank.min(RANK_MAX);
        if shape.len() > rank_max {
            return Err(Fault::Rank { rank: shape.len(), limit: rank_max });
        }
        // An empty list is an empty tensor, of no dimensions then and of one now.
        self.dims.extend_from_slice(shape);
        self.dims.extend(geometry::contiguous_stride(shape));
        parsed.rank = Some(shape.len() as u16);
        parsed.storage = Some(storage.index);
        parsed.flags.set(Flags::SWAPPED, self.byte_order == ByteOrder::Big && dtype.alignment() > 1);
        Ok(())
    }

    fn dims(&mut self, parsed: &mut Parsed, size: Raw, stride: Raw) -> Result<(), Fault> {
        // Tuples of the same integers share their items.
        let runs = self.run(size).zip(self.run(stride));
        let slot =
            runs.map(|(size, stride)| (size.start ^ stride.start.rotate_left(3)) as usize % SHAPES_KEPT);
        if let (Some(runs), Some(slot)) = (runs, slot) {
            let kept = self.shapes.get(slot).filter(|kept| (kept.size, kept.stride) == runs && kept.rank > 0);
            if let Some(kept) = kept {
                (parsed.dims_start, parsed.rank) = (kept.dims_start, Some(kept.rank));
                return Ok(());
            }
        }
        self.count_dims(parsed, size, stride)?;
        let kept = slot.and_then(|slot| self.shapes.get_mut(slot));
        if let (Some((size, stride)), Some(kept), Some(rank)) = (runs, kept, parsed.rank) {
            *kept = Shape { size, stride, dims_start: parsed.dims_start, rank };
        }
        Ok(())
    }

    /// Where the items of a tuple are.
    fn run(&self, value: Raw) -> Option<Run> {
        match self.tree.node(value.node()?) {
            Node::Tuple(run) => Some(run),
            _ => None,
        }
    }

    fn count_dims(&mut self, parsed: &mut Parsed, size: Raw, stride: Raw) -> Result<(), Fault> {
        let counted = self.counts(size, "size").and_then(|shape| Ok((shape, self.counts(stride, "stride")?)));
        let fault = match counted {
            Ok((shape, stride)) if shape == stride => {
                parsed.rank = Some(shape);
                return Ok(());
            }
            Ok((shape, stride)) => Fault::RankMismatch { shape: shape.into(), stride: stride.into() },
            Err(fault) => fault,
        };
        self.dims.truncate(parsed.dims_start);
        Err(fault)
    }

    /// Puts a sequence of counts behind the dims and returns how many there are.
    pub(crate) fn counts(&mut self, value: Raw, what: &'static str) -> Result<u16, Fault> {
        let malformed = || Fault::Malformed { what, problem: "not a sequence of integers" };
        let elements = self.tree.elements(value).ok_or_else(malformed)?;
        let rank_max = self.limits.rank.min(RANK_MAX);
        let start = self.dims.len();
        for element in elements {
            if self.dims.len() - start == rank_max {
                return Err(Fault::Rank { rank: self.tree.element_count(value), limit: rank_max });
            }
            self.dims.push(count(self.tree, element, what)?);
        }
        Ok((self.dims.len() - start) as u16)
    }

    fn metadata(&self, parsed: &mut Parsed, metadata: Option<&Raw>) {
        let Some(&metadata) = metadata else { return };
        for (key, flag) in [(&b"conj"[..], Flags::CONJ), (b"neg", Flags::NEG)] {
            parsed.flags.set(flag, self.field(metadata, key).is_some_and(truthy));
        }
    }

    fn quantizer(&self, parsed: &mut Parsed, quantizer: Raw) -> Result<(), Fault> {
        let malformed = || arguments("_rebuild_qtensor", "malformed quantizer");
        let fields = self.elements(Some(quantizer));
        let (&scheme, rest) = fields.split_first().ok_or_else(malformed)?;
        let scheme =
            scheme.node().filter(|&node| self.tree.known(node) == Known::QScheme).ok_or_else(malformed)?;
        let scheme = self.tree.global_name(scheme).unwrap_or_default();
        let scheme = scheme.trim_start_matches("torch.").to_owned();
        let quantizer = match *rest {
            [scale, zero_point] => Quantizer::PerTensor {
                scheme,
                scale: match scale {
                    Raw::Float(scale) => scale,
                    Raw::Int(scale) => scale as f64,
                    _ => return Err(malformed()),
                },
                zero_point: match zero_point {
                    Raw::Int(zero_point) => zero_point,
                    _ => return Err(malformed()),
                },
            },
            [scales, zero_points, axis] => {
                parsed.details().parts = parts([("#scales", scales), ("#zero_points", zero_points)]);
                Quantizer::PerChannel { scheme, axis: count(self.tree, axis, "quantization axis")? }
            }
            _ => return Err(malformed()),
        };
        parsed.details().quantizer = Some(quantizer);
        Ok(())
    }

    fn sparse(&mut self, parsed: &mut Parsed, layout: Raw, data: Raw) -> Result<(), Fault> {
        let malformed = |what| arguments("_rebuild_sparse_tensor", what);
        parsed.layout = self.layout(layout).ok_or_else(|| malformed("unknown layout"))?;
        let (compressed, plain) = match parsed.layout {
            Layout::SparseCsr | Layout::SparseBsr => ("#crow_indices", "#col_indices"),
            _ => ("#ccol_indices", "#row_indices"),
        };
        let (values, size) = match (parsed.layout, &self.elements(Some(data))[..]) {
            (Layout::SparseCoo, &[indices, values, size, ref coalesced @ ..]) => {
                parsed.details().coalesced = match coalesced.first() {
                    Some(Raw::Bool(coalesced)) => Some(*coalesced),
                    _ => None,
                };
                parsed.details().parts = parts([("#indices", indices), ("#values", values)]);
                (values, size)
            }
            (Layout::SparseCoo, _) => return Err(malformed("not (indices, values, size)")),
            (_, &[first, second, values, size, ..]) => {
                parsed.details().parts = parts([(compressed, first), (plain, second), ("#values", values)]);
                (values, size)
            }
            _ => return Err(malformed("not (compressed indices, plain indices, values, size)")),
        };
        parsed.dtype = self.leaf_dtype(values);
        match self.counts(size, "size") {
            Ok(rank) => parsed.rank = Some(rank),
            Err(fault) => {
                self.dims.truncate(parsed.dims_start);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// `torch.serialization._get_layout("torch.sparse_coo")`.
    fn layout(&self, layout: Raw) -> Option<Layout> {
        let Node::Object { callable, args, .. } = self.tree.node(layout.node()?) else { return None };
        if self.tree.known(callable) != Known::GetLayout {
            return None;
        }
        Some(match self.tree.str_bytes(*self.tree.args(args).first()?)? {
            b"torch.sparse_coo" => Layout::SparseCoo,
            b"torch.sparse_csr" => Layout::SparseCsr,
            b"torch.sparse_csc" => Layout::SparseCsc,
            b"torch.sparse_bsr" => Layout::SparseBsr,
            b"torch.sparse_bsc" => Layout::SparseBsc,
            _ => return None,
        })
    }

    fn dtype(&self, value: Raw) -> Result<DType, Fault> {
        let name = value.node().and_then(|node| self.tree.global_name(node)).unwrap_or_default();
        name.strip_prefix("torch.").and_then(DType::from_name).ok_or(Fault::UnknownDType { dtype: name })
    }

    /// Returns the dtype of the plain tensor at the bottom of a rebuild call.
    fn leaf_dtype(&self, value: Raw) -> Option<DType> {
        let mut call = self.call(value.node()?)?;
        for _ in 0..WRAPPERS_MAX {
            let inner = match call.known {
                Known::RebuildTensorV3 => return self.dtype(*call.args.get(6)?).ok(),
                Known::RebuildTensor | Known::RebuildTensorV2 | Known::RebuildQTensor => {
                    let Node::Persistent(id) = self.tree.node(call.args.first()?.node()?) else {
                        return None;
                    };
                    let class = self.tree.args(self.tree.persistent_id(id).node()?).get(1)?.node()?;
                    let global = self.tree.global(class)?;
                    return DType::from_storage_class(
                        std::str::from_utf8(self.tree.bytes(global.name)).ok()?,
                    );
                }
                Known::RebuildFromType | Known::RebuildFromTypeV2 => {
                    let [function, _, args, ..] = call.args else { return None };
                    let callable = function.node()?;
                    let known = self.tree.known(callable);
                    call = Call { callable, known, args: self.tree.args(args.node()?), state: None, ..call };
                    continue;
                }
                _ => *call.args.first()?,
            };
            call = self.call(inner.node()?)?;
        }
        None
    }

    /// Looks a string key up in a small dict. A dict that thousands of tensors share costs each of them the same.
    fn field(&self, dict: Raw, key: &[u8]) -> Option<Raw> {
        let pairs = self.tree.pairs(dict)?.take(METADATA_ENTRIES_MAX);
        pairs.filter(|(k, _)| self.tree.str_bytes(*k) == Some(key)).last().map(|(_, value)| value)
    }

    fn elements(&self, value: Option<Raw>) -> Vec<Raw> {
        value
            .and_then(|value| self.tree.elements(value))
            .map_or_else(Vec::new, |items| items.take(16).collect())
    }
}

/// Returns whether a call makes a tensor.
fn is_tensor(tree: &Tree<'_>, call: &Call<'_>) -> bool {
    match call.known {
        Known::RebuildTensor
        | Known::RebuildTensorV2
        | Known::RebuildTensorV3
        | Known::RebuildParameter
        | Known::RebuildParameterWithState
        | Known::RebuildQTensor
        | Known::RebuildSparse
        | Known::RebuildSparseCsr
        | Known::RebuildNested
        | Known::RebuildJagged
        | Known::RebuildMeta
        | Known::RebuildWrapper
        | Known::RebuildDeviceFromCpu
        | Known::RebuildDeviceFromNumpy => true,
        Known::ArrayReconstruct | Known::ArrayFromBuffer | Known::ArrayScalar => {
            Array::of(tree, call).is_some()
        }
        // Any class can be rebuilt from its type; only those made by a tensor's function are tensors.
        Known::RebuildFromType | Known::RebuildFromTypeV2 => call
            .args
            .first()
            .and_then(|function| function.node())
            .is_some_and(|function| !matches!(tree.known(function), Known::Other)),
        Known::Parameter | Known::Variable => !call.args.is_empty() || call.state.is_some(),
        Known::TypedTensor | Known::TensorClass => call.state.is_some() || is_listed(tree, call),
        _ => false,
    }
}

/// Returns whether a tensor's class is called with a list.
fn is_listed(tree: &Tree<'_>, call: &Call<'_>) -> bool {
    matches!(call.args, &[Raw::Node(list)] if tree.list_start(list).is_some())
}

/// The dtype of `FloatTensor` and its kin.
fn typed_dtype(class: &[u8]) -> Option<DType> {
    let scalar = std::str::from_utf8(class).ok()?.strip_suffix("Tensor")?;
    DType::from_storage_class(&format!("{scalar}Storage"))
}

fn parts<const N: usize>(parts: [(&'static str, Raw); N]) -> Vec<(Component, Raw)> {
    parts.into_iter().map(|(name, value)| (Component::Fixed(name), value)).collect()
}

fn arguments(function: &'static str, what: &'static str) -> Fault {
    Fault::Arguments { function, what }
}

fn truthy(value: Raw) -> bool {
    match value {
        Raw::Bool(value) => value,
        Raw::Int(value) => value != 0,
        _ => false,
    }
}
