//! Calls of the functions that rebuild tensors, with arguments that are mostly right: each byte picks the next opcode of a
//! pickle from a table, so that hardly any input is refused before the calls are looked at.
#![no_main]

use ptview_fuzz::{archive, exercise};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| exercise(&archive(&pickle(bytes))));

/// Functions and classes by number.
#[rustfmt::skip]
const GLOBALS: &[(&str, &str)] = &[
    ("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor_v3"), ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_parameter"), ("torch._utils", "_rebuild_parameter_with_state"), ("torch._utils", "_rebuild_qtensor"),
    ("torch._utils", "_rebuild_sparse_tensor"), ("torch._utils", "_rebuild_sparse_csr_tensor"), ("torch._utils", "_rebuild_nested_tensor"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"), ("torch._utils", "_rebuild_wrapper_subclass"),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"), ("torch._utils", "_rebuild_device_tensor_from_numpy"),
    ("torch._tensor", "_rebuild_from_type_v2"), ("torch.nested._internal.nested_tensor", "_rebuild_njt"),
    ("torch.nn.parameter", "Parameter"), ("torch", "FloatTensor"), ("torch", "Tensor"), ("torch", "Size"), ("torch", "device"),
    ("torch", "float32"), ("torch", "int64"), ("torch", "quint4x2"), ("torch", "bool"), ("torch", "per_tensor_affine"),
    ("torch", "per_channel_affine"), ("torch", "FloatStorage"), ("torch", "LongStorage"), ("torch", "QUInt4x2Storage"),
    ("torch.storage", "UntypedStorage"), ("torch.storage", "_load_from_bytes"), ("torch.serialization", "_get_layout"),
    ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"), ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "dtype"), ("numpy", "ndarray"), ("_codecs", "encode"), ("builtins", "bytearray"), ("builtins", "bytes"),
    ("collections", "OrderedDict"), ("torch.jit._pickle", "build_tensorlist"), ("a", "B"),
];

const STRINGS: &[&str] = &[
    "storage",
    "0",
    "1",
    "2",
    "cpu",
    "f4",
    "i8",
    "c16",
    "<",
    ">",
    "|",
    "C",
    "F",
    "K",
    "latin1",
    "torch.sparse_coo",
    "torch.sparse_csr",
    "values",
    "offsets",
    "requires_grad",
    "conj",
    "neg",
    "_is_param",
    "a",
    "é\u{80}12",
];

fn pickle(bytes: &[u8]) -> Vec<u8> {
    let mut out = b"\x80\x04}(".to_vec();
    let mut keys = 0u8..;
    let mut key = |out: &mut Vec<u8>| out.extend([0x8C, 1, keys.next().unwrap_or(0)]);
    key(&mut out);
    let mut bytes = bytes.iter().copied();
    let mut memo = 0u8;
    while let Some(byte) = bytes.next() {
        let mut next = || bytes.next().unwrap_or(0);
        match byte % 32 {
            0..=4 => {
                let (module, name) = GLOBALS[usize::from(next()) % GLOBALS.len()];
                out.extend(format!("c{module}\n{name}\n").bytes());
            }
            5..=7 => {
                let text = STRINGS[usize::from(next()) % STRINGS.len()];
                out.extend([0x8C, text.len() as u8]);
                out.extend(text.bytes());
            }
            8..=10 => out.extend([b'K', next() % 20]),
            11 => out.extend([&b"J"[..], &[next(), next(), next(), next()]].concat()),
            12 => out.extend(b"("),
            13 => out.extend(b"t"),
            14 => out.extend(b"\x85"),
            15 => out.extend(b"\x86"),
            16 => out.extend(b"\x87"),
            17 => out.extend(b")"),
            18 => out.extend(b"R"),
            19 => out.extend(b"Q"),
            20 => out.extend(b"b"),
            21 => out.extend([b'N', 0x88, 0x89][usize::from(next() % 3)..].first()),
            22 => {
                out.extend([b'q', memo]);
                memo = memo.wrapping_add(1);
            }
            23 | 24 => out.extend([b'h', if memo == 0 { next() } else { next() % memo }]),
            25 => out.extend([&b"]("[..], b"}("][usize::from(next() % 2)]),
            26 => out.extend([b'e', b'u'][usize::from(next() % 2)..].first()),
            27 => {
                let length = next() % 32;
                out.extend([[b'C', length].as_slice(), &vec![next(); length.into()]].concat());
            }
            28 => {
                // A whole persistent id.
                let class = ["FloatStorage", "LongStorage", "QUInt4x2Storage"][usize::from(next() % 3)];
                out.extend(b"(\x8C\x07storage");
                out.extend(format!("ctorch\n{class}\n").bytes());
                out.extend([0x8C, 1, b'0' + next() % 3]);
                out.extend(b"\x8C\x03cpu");
                out.extend([b'K', next() % 20, b't', b'Q']);
            }
            29 => out.extend([&b"G"[..], &[next(); 8]].concat()),
            30 => key(&mut out),
            _ => out.extend([b'u', b'}', b'(']),
        }
    }
    out.extend(b"u.");
    out
}
