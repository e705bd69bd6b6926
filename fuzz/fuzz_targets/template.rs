//! A pickle in a sound archive, as a template for the same file with some bytes changed: what matches must be what parsing it
//! says. Input: how many bytes are changed, where and to what, then the pickle.
#![no_main]

use pt_format::{Checkpoint, Kind, PartKind, Scalar, Template};

const CHANGE_BYTES: usize = 3;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&count, rest)) = input.split_first() else { return };
    let Some((changes, pickle)) = rest.split_at_checked(usize::from(count % 8) * CHANGE_BYTES) else {
        return;
    };
    let (mut file, limits) = (ptview_fuzz::padded_archive(pickle), ptview_fuzz::limits());
    let original = file.clone();
    let Ok(checkpoint) = Checkpoint::parse(&original, &limits) else { return };
    let Some(template) = Template::of(&original, &checkpoint, &limits) else { return };
    for change in changes.chunks_exact(CHANGE_BYTES) {
        // The places of the pickle, and those of the directory from the end on.
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]) % 2048);
        let at = if at < 1024 { at } else { file.len().wrapping_sub(at - 1023) };
        if let Some(byte) = file.get_mut(at) {
            *byte = change[2];
        }
    }
    let Some(alike) = template.compare(&file) else { return };
    let parsed = Checkpoint::parse(&file, &limits).expect("what matches can be parsed");
    assert_eq!(alike.fingerprint(), parsed.fingerprint());
    assert!(alike.records().map(Some).eq(parsed.storages().map(|storage| storage.record())));
    let (structure, mut leaves) = describe(&checkpoint);
    for (leaf, scalar) in alike.scalars() {
        leaves[leaf] = show(scalar);
    }
    assert_eq!((structure, leaves), describe(&parsed));
});

fn show(scalar: Scalar<'_>) -> String {
    match scalar {
        Scalar::Int(value) => value.to_string(),
        Scalar::Float(value) => format!("{:#x}", value.to_bits()),
        Scalar::Str(value) => format!("{value:?}"),
    }
}

/// Tensors and parts of a file, and its plain scalars.
fn describe(checkpoint: &Checkpoint<'_>) -> (Vec<String>, Vec<String>) {
    let tensors = checkpoint.tensors().map(|tensor| {
        let storage =
            tensor.storage().map(|storage| (storage.index(), storage.nbytes(), tensor.storage_offset()));
        let shape = (tensor.dtype(), tensor.shape(), tensor.stride(), tensor.layout(), tensor.flags());
        let rest = (tensor.class(), tensor.quantizer(), tensor.alias_of().map(|first| first.index()));
        format!("{} {:?} {storage:?} {shape:?} {rest:?} {:?}", tensor.name(), tensor.path(), tensor.fault())
    });
    let mut structure: Vec<String> = tensors.collect();
    let mut leaves = Vec::new();
    for part in checkpoint.structure() {
        let (key, value) = (part.key.map(|key| key.component()), part.value);
        structure.push(format!(
            "{:?} {key:?} {} {} {:?}",
            part.kind,
            part.position,
            part.depth,
            value.class()
        ));
        if part.kind == PartKind::Leaf {
            leaves.push(match (value.as_i64(), value.as_f64(), value.as_str()) {
                _ if value.kind() == Kind::Bool => format!("{:?}", value.as_bool()),
                (Some(value), ..) => show(Scalar::Int(value)),
                (_, Some(value), _) => show(Scalar::Float(value)),
                (.., Some(value)) => show(Scalar::Str(value)),
                (None, None, None) => format!("{:?}", value.kind()),
            });
        }
    }
    (structure, leaves)
}
