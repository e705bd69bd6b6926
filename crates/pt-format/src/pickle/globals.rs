//! The table of globals whose meaning is known.
//!
//! Source: `torch/_utils.py`, `torch/_tensor.py`, `torch/serialization.py` of 0.1 to 2.15, `numpy/_core/`, and what pickle
//! itself writes for Python's builtin containers. Everything that is not here stays opaque.

/// What a global is known to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Other,
    // Tensors.
    RebuildTensor,
    RebuildTensorV2,
    RebuildTensorV3,
    RebuildParameter,
    RebuildParameterWithState,
    RebuildFromType,
    RebuildFromTypeV2,
    RebuildQTensor,
    RebuildSparse,
    RebuildSparseCsr,
    RebuildNested,
    RebuildJagged,
    RebuildMeta,
    RebuildWrapper,
    RebuildDeviceFromCpu,
    RebuildDeviceFromNumpy,
    Parameter,
    Variable,
    /// `torch.FloatTensor` and its kin, built from a state.
    TypedTensor,
    /// `torch.Tensor`, the class.
    TensorClass,
    // numpy arrays and scalars.
    ArrayReconstruct,
    ArrayFromBuffer,
    ArrayScalar,
    /// `numpy.ndarray`, the class.
    ArrayClass,
    ArrayDType,
    // Values.
    DType,
    Storage,
    /// Makes a storage of the bytes of a whole `torch.save` file.
    LoadFromBytes,
    Size,
    Device,
    GetLayout,
    /// `torch.per_tensor_affine` and its kin.
    QScheme,
    // Python containers.
    OrderedDict,
    DefaultDict,
    /// Called with a dict.
    Counter,
    Set,
    FrozenSet,
    Slice,
    Range,
    Complex,
    ByteArray,
    Bytes,
    CodecsEncode,
    Reconstructor,
    /// `torch.jit._pickle` wrappers around a list or dict: the wrapped value counts.
    JitContainer,
}

impl Known {
    /// Looks a global up by its names in Python 3.
    pub(crate) fn of(module: &[u8], name: &[u8]) -> Self {
        match module {
            b"torch._utils" => match name {
                b"_rebuild_tensor_v2" => Self::RebuildTensorV2,
                b"_rebuild_tensor" => Self::RebuildTensor,
                b"_rebuild_tensor_v3" => Self::RebuildTensorV3,
                b"_rebuild_parameter" => Self::RebuildParameter,
                b"_rebuild_parameter_with_state" => Self::RebuildParameterWithState,
                b"_rebuild_qtensor" => Self::RebuildQTensor,
                b"_rebuild_sparse_tensor" => Self::RebuildSparse,
                b"_rebuild_sparse_csr_tensor" => Self::RebuildSparseCsr,
                b"_rebuild_nested_tensor" => Self::RebuildNested,
                b"_rebuild_meta_tensor_no_storage" => Self::RebuildMeta,
                b"_rebuild_wrapper_subclass" => Self::RebuildWrapper,
                b"_rebuild_device_tensor_from_cpu_tensor" => Self::RebuildDeviceFromCpu,
                b"_rebuild_device_tensor_from_numpy" | b"_rebuild_xla_tensor" | b"_rebuild_mlc_tensor" => {
                    Self::RebuildDeviceFromNumpy
                }
                _ => Self::Other,
            },
            b"torch._tensor" | b"torch.tensor" => match name {
                b"_rebuild_from_type_v2" => Self::RebuildFromTypeV2,
                b"_rebuild_from_type" => Self::RebuildFromType,
                b"Tensor" => Self::TensorClass,
                _ => Self::Other,
            },
            b"torch.nested._internal.nested_tensor" if name == b"_rebuild_njt" => Self::RebuildJagged,
            b"torch.nn.parameter" if name == b"Parameter" => Self::Parameter,
            b"torch.autograd.variable" if name == b"Variable" => Self::Variable,
            b"torch.storage" if name == b"_load_from_bytes" => Self::LoadFromBytes,
            b"torch.storage" if name.ends_with(b"Storage") => Self::Storage,
            b"torch" | b"torch.cuda" => Self::of_torch(name),
            b"torch.serialization" if name == b"_get_layout" => Self::GetLayout,
            b"torch.jit._pickle" => match name {
                b"build_intlist" | b"build_doublelist" | b"build_boollist" | b"build_tensorlist"
                | b"restore_type_tag" => Self::JitContainer,
                _ => Self::Other,
            },
            b"numpy" => match name {
                b"dtype" => Self::ArrayDType,
                b"ndarray" => Self::ArrayClass,
                _ => Self::Other,
            },
            // The first name is that of numpy before 2.0.
            b"numpy.core.multiarray" | b"numpy._core.multiarray" => match name {
                b"_reconstruct" => Self::ArrayReconstruct,
                b"scalar" => Self::ArrayScalar,
                _ => Self::Other,
            },
            b"numpy.core.numeric" | b"numpy._core.numeric" if name == b"_frombuffer" => Self::ArrayFromBuffer,
            b"collections" => match name {
                b"OrderedDict" => Self::OrderedDict,
                b"defaultdict" => Self::DefaultDict,
                b"Counter" => Self::Counter,
                _ => Self::Other,
            },
            b"builtins" => match name {
                b"set" => Self::Set,
                b"frozenset" => Self::FrozenSet,
                b"slice" => Self::Slice,
                b"range" => Self::Range,
                b"complex" => Self::Complex,
                b"bytearray" => Self::ByteArray,
                b"bytes" => Self::Bytes,
                _ => Self::Other,
            },
            b"_codecs" if name == b"encode" => Self::CodecsEncode,
            b"copyreg" if name == b"_reconstructor" => Self::Reconstructor,
            _ => Self::Other,
        }
    }

    fn of_torch(name: &[u8]) -> Self {
        match name {
            b"Size" => Self::Size,
            b"device" => Self::Device,
            b"Tensor" => Self::TensorClass,
            b"per_tensor_affine"
            | b"per_channel_affine"
            | b"per_tensor_symmetric"
            | b"per_channel_symmetric"
            | b"per_channel_affine_float_qparams" => Self::QScheme,
            _ if name.ends_with(b"Storage") => Self::Storage,
            _ if name.ends_with(b"Tensor") => Self::TypedTensor,
            _ if is_dtype(name) => Self::DType,
            _ => Self::Other,
        }
    }

    /// Returns whether calling it gives a mapping, filled by SETITEMS.
    pub(crate) fn is_dict(self) -> bool {
        matches!(self, Self::OrderedDict | Self::DefaultDict)
    }
}

/// Returns the Python 3 names of a global of Python 2, in which protocols 0 to 2 are written to this day; `None` when
/// they are the same. Source: `_compat_pickle.py` of CPython, as far as it speaks of builtins and containers.
pub(crate) fn modern_name<'n>(module: &'n [u8], name: &'n [u8]) -> Option<(&'n [u8], &'n [u8])> {
    Some(match module {
        b"__builtin__" => match name {
            b"long" => (b"builtins", b"int"),
            b"unicode" | b"basestring" => (b"builtins", b"str"),
            b"unichr" => (b"builtins", b"chr"),
            b"xrange" => (b"builtins", b"range"),
            b"reduce" => (b"functools", name),
            b"intern" => (b"sys", name),
            _ => (b"builtins", name),
        },
        b"exceptions" if name == b"StandardError" => (b"builtins", b"Exception"),
        b"exceptions" => (b"builtins", name),
        b"UserDict" if name == b"IterableUserDict" => (b"collections", b"UserDict"),
        b"UserDict" | b"UserList" | b"UserString" => (b"collections", name),
        b"copy_reg" => (b"copyreg", name),
        b"cPickle" => (b"pickle", name),
        b"StringIO" | b"cStringIO" => (b"io", name),
        b"Queue" => (b"queue", name),
        b"ConfigParser" => (b"configparser", name),
        b"thread" => (b"_thread", name),
        _ => return None,
    })
}

/// `int1` to `int7` and `uint1` to `uint7` are dtypes of which no tensor can be saved.
fn is_dtype(name: &[u8]) -> bool {
    let name = std::str::from_utf8(name).unwrap_or("");
    let sub_byte = name.strip_prefix('u').unwrap_or(name).strip_prefix("int");
    crate::DType::from_name(name).is_some()
        || matches!(sub_byte, Some("1" | "2" | "3" | "4" | "5" | "6" | "7"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_python_2_are_translated() {
        for (module, name, modern) in [
            ("__builtin__", "long", Some(("builtins", "int"))),
            ("__builtin__", "set", Some(("builtins", "set"))),
            ("copy_reg", "_reconstructor", Some(("copyreg", "_reconstructor"))),
            ("exceptions", "KeyError", Some(("builtins", "KeyError"))),
            ("torch", "Size", None),
        ] {
            let modern = modern.map(|(module, name)| (module.as_bytes(), name.as_bytes()));
            assert_eq!(modern_name(module.as_bytes(), name.as_bytes()), modern);
        }
    }

    #[test]
    fn names_of_every_age_are_known() {
        assert_eq!(Known::of(b"torch.tensor", b"_rebuild_from_type_v2"), Known::RebuildFromTypeV2);
        assert_eq!(Known::of(b"torch.cuda", b"HalfStorage"), Known::Storage);
        assert_eq!(Known::of(b"torch", b"int4"), Known::DType);
        assert_eq!(Known::of(b"torch", b"LongTensor"), Known::TypedTensor);
        assert_eq!(Known::of(b"posix", b"system"), Known::Other);
        assert_eq!(Known::of(b"torch", b"load"), Known::Other);
    }
}
