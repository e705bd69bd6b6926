//! Pickles written opcode by opcode, for files that no honest program writes.

/// A protocol 2 pickle in the making. Memo indices are the caller's to choose.
#[derive(Clone)]
pub struct Pickle(Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    /// Appends opcodes as they are.
    pub fn raw(mut self, opcodes: impl AsRef<[u8]>) -> Self {
        self.0.extend(opcodes.as_ref());
        self
    }

    /// Appends opcodes so many times.
    pub fn times(mut self, count: usize, opcodes: impl AsRef<[u8]>) -> Self {
        (0..count).for_each(|_| self.0.extend(opcodes.as_ref()));
        self
    }

    pub fn str(self, text: &str) -> Self {
        self.raw(b"X").raw((text.len() as u32).to_le_bytes()).raw(text)
    }

    pub fn int(self, value: i32) -> Self {
        self.raw(b"J").raw(value.to_le_bytes())
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n"))
    }

    /// Takes what is on top into the memo and off the stack.
    pub fn keep(self, index: u8) -> Self {
        self.raw([b'q', index, b'0'])
    }

    pub fn get(self, index: u8) -> Self {
        self.raw([b'h', index])
    }

    /// Appends a dict of `count` entries `"k0": 0, …` and leaves it on the stack.
    pub fn dict_of(mut self, count: usize) -> Self {
        self = self.raw(b"}(");
        for number in 0..count {
            self = self.str(&format!("k{number}")).raw(b"K\0");
        }
        self.raw(b"u")
    }

    /// Appends a list, each element made by these opcodes.
    pub fn list_of(self, count: usize, opcodes: impl AsRef<[u8]>) -> Self {
        self.raw(b"](").times(count, opcodes).raw(b"e")
    }

    /// Appends calls around calls of what the memo holds: `f(f(f(inner)))`.
    pub fn nested_calls(self, count: usize, index: u8, inner: &str) -> Self {
        self.times(count, [b'h', index]).raw(inner).times(count, b"\x85R")
    }

    /// Appends the persistent id of a storage of floats.
    pub fn storage(self, key: &str, numel: i32) -> Self {
        let pid =
            self.raw(b"(").str("storage").global("torch", "FloatStorage").str(key).str("cpu").int(numel);
        pid.raw(b"tQ")
    }

    /// Appends STOP and returns the bytes.
    pub fn stop(self) -> Vec<u8> {
        self.raw(b".").0
    }
}
