//! Plain subtrees as `serde_pickle::Value`, and so as anything `serde` can deserialize.

use serde::de::DeserializeOwned;
use serde_pickle::{HashableValue, Value as Plain};

use crate::error::{Error, Result};
use crate::pickle::{Kind, Value};

impl<'c> Value<'c> {
    /// Copies a subtree of plain values (numbers, strings, bytes, lists, tuples, sets, dicts) into a
    /// [`serde_pickle::Value`].
    ///
    /// # Errors
    /// [`Error::Value`] names the first value that is not plain: a tensor, an object, a class, a cycle.
    /// [`Error::Limit`] when nesting or shared parts exceed the checkpoint's limits.
    pub fn to_plain(self) -> Result<Plain> {
        Conversion { stack: Vec::new(), produced: 0, root: self }.run()
    }

    /// Deserializes a plain subtree into a caller's own type.
    ///
    /// # Errors
    /// As [`Self::to_plain`]; [`Error::Value`] too when the shape of the type does not fit.
    pub fn deserialize<T: DeserializeOwned>(self) -> Result<T> {
        serde_pickle::from_value(self.to_plain()?).map_err(|error| Error::Value {
            path: String::new(),
            found: error.to_string(),
            expected: std::any::type_name::<T>().to_owned(),
        })
    }
}

/// Builds containers from the inside out, with a stack of those still open.
struct Conversion<'c> {
    stack: Vec<Open<'c>>,
    produced: usize,
    root: Value<'c>,
}

struct Open<'c> {
    kind: Kind,
    identity: Option<u32>,
    /// Children to convert, last first; keys and values of a dict in turn.
    todo: Vec<Value<'c>>,
    done: Vec<Plain>,
}

impl<'c> Conversion<'c> {
    fn run(mut self) -> Result<Plain> {
        let mut finished = self.begin(self.root)?;
        loop {
            if let Some(value) = finished.take() {
                match self.stack.last_mut() {
                    None => return Ok(value),
                    Some(open) => open.done.push(value),
                }
            }
            let Some(open) = self.stack.last_mut() else { return Ok(Plain::None) };
            finished = match open.todo.pop() {
                Some(child) => self.begin(child)?,
                None => match self.stack.pop() {
                    Some(open) => Some(self.close(open)?),
                    None => None,
                },
            };
        }
    }

    /// Converts a scalar at once; opens a container.
    fn begin(&mut self, value: Value<'c>) -> Result<Option<Plain>> {
        let limits = &value.checkpoint.limits;
        self.produced += 1;
        if self.produced > limits.expanded_values {
            return Err(limit(
                "values in a converted subtree",
                self.produced,
                limits.expanded_values,
                "expanded_values",
            ));
        }
        let kind = value.kind();
        let todo: Vec<Value<'c>> = match kind {
            Kind::None => return Ok(Some(Plain::None)),
            Kind::Bool => return Ok(value.as_bool().map(Plain::Bool)),
            Kind::Float => return Ok(value.as_f64().map(Plain::F64)),
            Kind::Int => {
                return Ok(match value.as_i64() {
                    Some(value) => Some(Plain::I64(value)),
                    None => value.as_int_bytes().map(|bytes| big_int(&bytes)),
                });
            }
            Kind::Str => {
                let text = value.as_str().ok_or_else(|| self.not_plain("text with lone surrogates"))?;
                return Ok(Some(Plain::String(text.to_owned())));
            }
            Kind::Bytes | Kind::ByteArray => {
                let bytes = value.as_bytes().ok_or_else(|| self.not_plain("bytes in an unknown encoding"))?;
                return Ok(Some(Plain::Bytes(bytes.into_owned())));
            }
            Kind::List | Kind::Tuple | Kind::Size | Kind::Set | Kind::FrozenSet => value.items().collect(),
            Kind::Dict | Kind::OrderedDict => value.entries().flat_map(|(key, value)| [key, value]).collect(),
            _ => return Err(self.not_plain(&format!("{value:?}"))),
        };
        if self.stack.len() >= limits.nesting {
            return Err(limit(
                "nesting of a converted subtree",
                self.stack.len() + 1,
                limits.nesting,
                "nesting",
            ));
        }
        let identity = value.identity();
        if self.stack.iter().any(|open| open.identity == identity) {
            return Err(self.not_plain("a container that holds itself"));
        }
        let done = Vec::with_capacity(todo.len());
        self.stack.push(Open { kind, identity, todo: todo.into_iter().rev().collect(), done });
        Ok(None)
    }

    fn close(&self, open: Open<'c>) -> Result<Plain> {
        let hashable = |value: Plain| {
            value
                .into_hashable()
                .map_err(|_| self.not_plain("a set element or dict key that is not hashable"))
        };
        Ok(match open.kind {
            Kind::List => Plain::List(open.done),
            Kind::Set => Plain::Set(open.done.into_iter().map(hashable).collect::<Result<_>>()?),
            Kind::FrozenSet => Plain::FrozenSet(open.done.into_iter().map(hashable).collect::<Result<_>>()?),
            Kind::Dict | Kind::OrderedDict => {
                let mut values = open.done.into_iter();
                let mut dict = std::collections::BTreeMap::<HashableValue, Plain>::new();
                while let (Some(key), Some(value)) = (values.next(), values.next()) {
                    dict.insert(hashable(key)?, value);
                }
                Plain::Dict(dict)
            }
            _ => Plain::Tuple(open.done),
        })
    }

    fn not_plain(&self, found: &str) -> Error {
        let path = format!("(inside {:?}, {} levels deep)", self.root.kind(), self.stack.len());
        Error::Value { path, found: found.to_owned(), expected: "a plain value".into() }
    }
}

fn limit(what: &'static str, found: usize, limit: usize, field: &'static str) -> Error {
    Error::Limit { what, found: found as u64, limit: limit as u64, field }
}

/// Two's complement to `serde_pickle`'s big integer, through its own pickle reader: the type itself is not exported.
fn big_int(bytes: &[u8]) -> Plain {
    let mut pickle = vec![0x80, 2, 0x8B];
    pickle.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    pickle.extend_from_slice(bytes);
    pickle.push(b'.');
    serde_pickle::value_from_slice(&pickle, serde_pickle::DeOptions::new()).unwrap_or(Plain::None)
}
