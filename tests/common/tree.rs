//! A value tree as the typed JSON of `expected.json` (`testdata/generate/oracle/walk.py` defines it).

use pt_format::{Checkpoint, Kind, Layout, Value};
use serde_json::{Map, Value as Json, json};

const MODULE_TABLES: [&str; 3] = ["_parameters", "_buffers", "_modules"];

/// Returns the value tree of a checkpoint. Recursive: for files whose depth is known.
pub fn tree(checkpoint: &Checkpoint<'_>) -> Json {
    Walk { stack: Vec::new() }.value(checkpoint.values(), &[])
}

struct Walk {
    /// Identities of the containers around the current value.
    stack: Vec<u32>,
}

impl Walk {
    fn value(&mut self, value: Value<'_>, path: &[String]) -> Json {
        let kind = value.kind();
        let Some(identity) = value.identity().filter(|_| kind != Kind::FrozenSet) else {
            return self.inner(value, path);
        };
        if let Some(depth) = self.stack.iter().position(|&open| open == identity) {
            return json!({"t": "cycle", "up": self.stack.len() - depth});
        }
        self.stack.push(identity);
        let out = self.inner(value, path);
        self.stack.pop();
        out
    }

    fn inner(&mut self, value: Value<'_>, path: &[String]) -> Json {
        match value.kind() {
            Kind::None => json!({"t": "none"}),
            Kind::Bool => json!({"t": "bool", "v": value.as_bool().unwrap()}),
            Kind::Int => json!({"t": "int", "v": decimal(&value.as_int_bytes().unwrap())}),
            Kind::Float => json!({"t": "float", "bits": bits(value.as_f64().unwrap())}),
            Kind::Complex => {
                let (real, imaginary) = value.as_complex().unwrap();
                json!({"t": "complex", "bits": [bits(real), bits(imaginary)]})
            }
            Kind::Str => match value.as_str() {
                Some(text) => json!({"t": "str", "v": text}),
                None => json!({"t": "str_wtf8", "hex": hex(value.as_str_bytes().unwrap())}),
            },
            Kind::Bytes => bytes("bytes", value),
            Kind::ByteArray => bytes("bytearray", value),
            Kind::List => json!({"t": "list", "v": self.items(value, path)}),
            Kind::Tuple => json!({"t": "tuple", "v": self.items(value, path)}),
            Kind::Set => json!({"t": "set", "v": self.set(value, path)}),
            Kind::FrozenSet => json!({"t": "frozenset", "v": self.set(value, path)}),
            Kind::Dict => json!({"t": "dict", "v": self.pairs(value, path)}),
            Kind::OrderedDict => self.ordered_dict(value, path),
            Kind::Slice => {
                json!({"t": "slice", "v": value.args().map(|arg| self.value(arg, path)).collect::<Vec<_>>()})
            }
            Kind::Range => json!({"t": "range", "v": ints(value.args())}),
            Kind::Size => json!({"t": "Size", "v": ints(value.items())}),
            Kind::DType => json!({"t": "dtype", "v": value.as_dtype_name().unwrap()}),
            Kind::Device => json!({"t": "device", "v": value.as_device().unwrap()}),
            Kind::Global => json!({"t": "global", "v": value.as_global().unwrap()}),
            Kind::Storage => storage(value),
            Kind::Tensor => self.tensor(value, path),
            Kind::Opaque => self.object(value, path),
            other => panic!("{other:?}"),
        }
    }

    fn items(&mut self, value: Value<'_>, path: &[String]) -> Vec<Json> {
        let children = value.items().zip(0usize..);
        children.map(|(child, position)| self.value(child, &below(path, position.to_string()))).collect()
    }

    fn set(&mut self, value: Value<'_>, path: &[String]) -> Vec<Json> {
        let mut out: Vec<_> =
            value.items().map(|child| self.value(child, &below(path, "<item>".into()))).collect();
        out.sort_by_key(Json::to_string);
        out
    }

    fn pairs(&mut self, value: Value<'_>, path: &[String]) -> Vec<Json> {
        let pairs = value.entries().zip(0usize..);
        let pair = |((key, value), position): ((Value<'_>, Value<'_>), usize)| {
            let left = self.value(key, &below(path, format!("<key {position}>")));
            json!([left, self.value(value, &below(path, key.component()))])
        };
        pairs.map(pair).collect()
    }

    fn ordered_dict(&mut self, value: Value<'_>, path: &[String]) -> Json {
        let mut out = json!({"t": "OrderedDict", "v": self.pairs(value, path)});
        let attributes = self.attributes(value, &below(path, "__dict__".into()));
        if !attributes.is_empty() {
            out["attrs"] = Json::Object(attributes);
        }
        out
    }

    fn attributes(&mut self, value: Value<'_>, path: &[String]) -> Map<String, Json> {
        value
            .attributes()
            .map(|(key, v)| (key.component(), self.value(v, &below(path, key.component()))))
            .collect()
    }

    fn tensor(&mut self, value: Value<'_>, path: &[String]) -> Json {
        let tensor = value.as_tensor().unwrap();
        let mut out = json!({"t": "tensor", "path": path});
        // The state of a wrapper subclass is its parts.
        if let Some(state) = tensor.state().filter(|_| tensor.layout() != Layout::Wrapper) {
            let is_pair = state.kind() == Kind::Tuple && state.items().count() == 2;
            let json = match state.kind() {
                Kind::None => Json::Null,
                Kind::Dict | Kind::OrderedDict => self.value(state, path),
                _ if is_pair => {
                    json!({"t": "tuple", "v": state.items().map(|part| self.value(part, path)).collect::<Vec<_>>()})
                }
                _ => self.value(state, &below(path, "__state__".into())),
            };
            if !json.is_null() {
                out["state"] = json;
            }
        }
        let parts: Map<_, _> =
            tensor.parts().map(|(name, part)| (name.clone(), self.value(part, &below(path, name)))).collect();
        if !parts.is_empty() {
            out["parts"] = Json::Object(parts);
        }
        out
    }

    fn object(&mut self, value: Value<'_>, path: &[String]) -> Json {
        let class = value.class().unwrap_or_else(|| "?call.?".into());
        let mut out = json!({"t": "object", "class": class});
        let args = below(path, "__args__".into());
        let args: Vec<_> = value
            .args()
            .zip(0usize..)
            .map(|(arg, at)| self.value(arg, &below(&args, at.to_string())))
            .collect();
        let appended = self.items(value, path);
        let pairs = self.pairs(value, path);
        for (field, content) in [("args", args), ("appended", appended), ("items", pairs)] {
            if !content.is_empty() {
                out[field] = Json::Array(content);
            }
        }
        let Some(last) = value.states().last() else { return out };
        let mut attributes = self.attributes(value, path);
        if attributes.is_empty() {
            out["state"] = self.value(last, &below(path, "__state__".into()));
            return out;
        }
        if MODULE_TABLES.iter().all(|table| attributes.contains_key(*table)) {
            out = json!({"t": "module", "class": class});
            // The empty hook tables and the like are left out.
            attributes.retain(|key, value| {
                MODULE_TABLES.contains(&key.as_str())
                    || key == "training"
                    || !(value["t"] == "OrderedDict" || value["t"] == "none")
                    || !key.starts_with('_')
            });
        }
        out["state"] = Json::Object(attributes);
        out
    }
}

fn below(path: &[String], component: String) -> Vec<String> {
    [path, &[component]].concat()
}

fn bytes(kind: &str, value: Value<'_>) -> Json {
    let content = value.as_bytes().unwrap();
    json!({"t": kind, "hex": (content.len() <= 4096).then(|| hex(&content)), "len": content.len()})
}

fn ints<'c>(values: impl Iterator<Item = Value<'c>>) -> Vec<i64> {
    values.map(|value| value.as_i64().unwrap()).collect()
}

/// The offset and the digest of the record are left out: a bare storage names the record, no more.
fn storage(value: Value<'_>) -> Json {
    let [class, key, location, numel] = value.as_storage().unwrap();
    json!({
        "t": "storage",
        "key": key.component(),
        "class": class.as_global().unwrap().rsplit('.').next(),
        "numel": numel.as_i64(),
        "location": location.component(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bits(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

/// Two's complement, little-endian, to decimal digits.
fn decimal(bytes: &[u8]) -> String {
    let negative = bytes.last().is_some_and(|&top| top >= 0x80);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in &mut magnitude {
            (*byte, carry) = (!*byte).overflowing_add(carry.into());
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|&byte| byte != 0) {
        let mut rest = 0u32;
        for byte in magnitude.iter_mut().rev() {
            rest = rest << 8 | u32::from(*byte);
            (*byte, rest) = ((rest / 10) as u8, rest % 10);
        }
        digits.push(b'0' + rest as u8);
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    if negative {
        digits.push(b'-');
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

/// Brings the expected tree to the same form: floats as their bits alone, sets sorted in our order, and no facts about
/// records.
pub fn normalized(expected: &Json) -> Json {
    match expected {
        Json::Array(items) => Json::Array(items.iter().map(normalized).collect()),
        Json::Object(fields) => {
            let mut out: Map<_, _> =
                fields.iter().map(|(key, value)| (key.clone(), normalized(value))).collect();
            match out.get("t").and_then(Json::as_str) {
                Some("float") => drop(out.remove("v")),
                Some("complex") => {
                    let parts = out.remove("v").unwrap();
                    let part = |at: usize| bits(parts[at].as_str().unwrap().parse().unwrap());
                    out.insert("bits".into(), json!([part(0), part(1)]));
                }
                Some("set" | "frozenset") => out["v"].as_array_mut().unwrap().sort_by_key(Json::to_string),
                Some("storage") => {
                    out.retain(|key, _| !["dtype", "file_offset", "sha256"].contains(&key.as_str()))
                }
                _ => {}
            }
            Json::Object(out)
        }
        other => other.clone(),
    }
}
