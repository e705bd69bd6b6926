//! All that is known of a file, to be compared: parsed, or told by a template. The fuzz target `template` uses it too.

use pt_format::{Alike, Checkpoint, Fingerprint, Kind, PartKind, Record, Scalar};

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    pub fingerprint: Fingerprint,
    /// Tensors, storages but for their records, and the parts of the object but for scalars.
    pub structure: Vec<String>,
    pub records: Vec<Option<Record>>,
    /// Plain scalars.
    pub leaves: Vec<String>,
}

impl Description {
    /// Describes a parsed file.
    pub fn of(checkpoint: &Checkpoint<'_>) -> Self {
        let mut structure = vec![format!("{:?} {:?}", checkpoint.container(), checkpoint.byte_order())];
        for tensor in checkpoint.tensors() {
            let place = (tensor.storage().map(|storage| storage.index()), tensor.storage_offset());
            let alias = tensor.alias_of().map(|first| first.index());
            structure.push(format!(
                "{} {:?} {:?} {:?} {:?} {place:?} {alias:?} {:?} {:?} {:?} {:?} {:?}",
                tensor.name(),
                tensor.path(),
                tensor.dtype(),
                tensor.shape(),
                tensor.stride(),
                tensor.layout(),
                tensor.flags(),
                tensor.class(),
                tensor.quantizer(),
                tensor.fault(),
            ));
        }
        for storage in checkpoint.storages() {
            structure.push(format!("{} {:?}", storage.nbytes(), storage.fault()));
        }
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
        let records = checkpoint.storages().map(|storage| storage.record()).collect();
        Self { fingerprint: checkpoint.fingerprint(), structure, records, leaves }
    }

    /// Describes another file, as one that matches the template of this one.
    pub fn told_by(&self, alike: &Alike<'_, '_>) -> Self {
        let mut leaves = self.leaves.clone();
        for (leaf, scalar) in alike.scalars() {
            leaves[leaf] = show(scalar);
        }
        let records = alike.records().map(Some).collect();
        Self { fingerprint: alike.fingerprint(), structure: self.structure.clone(), records, leaves }
    }
}

fn show(scalar: Scalar<'_>) -> String {
    match scalar {
        Scalar::Int(value) => format!("int {value}"),
        Scalar::Float(value) => format!("float {:#x}", value.to_bits()),
        Scalar::Str(value) => format!("str {value:?}"),
    }
}
