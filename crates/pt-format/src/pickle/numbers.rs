//! Tensors that are lists of numbers, as `pickle.dump` wrote them before torch 0.2: `torch.FloatTensor([[1.5, 2.0], …])`.
//!
//! The list is read from its opcodes, where it stands. Only those that `pickle` writes for a list of lists of numbers
//! count; whatever takes a value from elsewhere ends it.

use half::{bf16, f16};

use crate::dtype::DType;
use crate::pickle::opcode as op;

/// Lists in lists; torch stops at 64 dimensions or fewer.
const DEPTH_MAX: usize = 64;

/// What a list of numbers is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) shape: Vec<u64>,
    /// Bytes of opcodes.
    pub(crate) length: usize,
}

/// Reads the items of a list from behind the opcode that begins it, and appends them as elements of a dtype. Returns what
/// they were up to the first opcode that is no part of it, `None` when that is no list of numbers in equal rows, or of a
/// dtype that never was written so.
pub(crate) fn read_numbers(opcodes: &[u8], dtype: DType, out: &mut Vec<u8>) -> Option<Numbers> {
    let mut reader = Reader { rest: opcodes, stack: vec![Slot::list()] };
    let mut length = 0;
    while let Some((&opcode, rest)) = reader.rest.split_first() {
        reader.rest = rest;
        match reader.step(opcode)? {
            Step::Number(number) => {
                push(dtype, number, out)?;
                reader.number();
            }
            Step::Structure => {}
            Step::End => break,
        }
        length = opcodes.len() - reader.rest.len();
    }
    match <[Slot; 1]>::try_from(reader.stack) {
        Ok([Slot::List { count, rows }]) => {
            let mut shape = vec![count];
            shape.extend(rows.unwrap_or_default());
            Some(Numbers { shape, length })
        }
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Number {
    Int(i64),
    Float(f64),
}

enum Step {
    Number(Number),
    Structure,
    End,
}

/// What is on the stack.
enum Slot {
    Mark,
    /// So many numbers.
    Numbers(u64),
    List {
        count: u64,
        /// Shape of each item; numbers have an empty one.
        rows: Option<Vec<u64>>,
    },
}

impl Slot {
    fn list() -> Self {
        Self::List { count: 0, rows: None }
    }
}

struct Reader<'o> {
    rest: &'o [u8],
    stack: Vec<Slot>,
}

impl Reader<'_> {
    fn step(&mut self, opcode: u8) -> Option<Step> {
        Some(match opcode {
            op::BINFLOAT => Step::Number(Number::Float(f64::from_be_bytes(self.array()?))),
            op::BININT => Step::Number(Number::Int(i32::from_le_bytes(self.array()?).into())),
            op::BININT1 => Step::Number(Number::Int(u8::from_le_bytes(self.array()?).into())),
            op::BININT2 => Step::Number(Number::Int(u16::from_le_bytes(self.array()?).into())),
            op::NEWTRUE => Step::Number(Number::Int(1)),
            op::NEWFALSE => Step::Number(Number::Int(0)),
            op::LONG1 => {
                let [length] = self.array()?;
                let (bytes, rest) = self.rest.split_at_checked(length.into())?;
                self.rest = rest;
                let fill = if bytes.last().is_some_and(|top| top & 0x80 != 0) { 0xFF } else { 0 };
                let mut wide = [fill; 8];
                wide.get_mut(..bytes.len())?.copy_from_slice(bytes);
                Step::Number(Number::Int(i64::from_le_bytes(wide)))
            }
            op::FLOAT => Step::Number(Number::Float(self.line()?.parse().ok()?)),
            op::INT => Step::Number(Number::Int(self.line()?.parse().ok()?)),
            op::LONG => Step::Number(Number::Int(self.line()?.trim_end_matches('L').parse().ok()?)),
            op::EMPTY_LIST => {
                self.stack.push(Slot::list());
                Step::Structure
            }
            op::MARK => {
                self.stack.push(Slot::Mark);
                Step::Structure
            }
            op::LIST => {
                *self.stack.last_mut().filter(|top| matches!(top, Slot::Mark))? = Slot::list();
                Step::Structure
            }
            op::APPEND => {
                self.append()?;
                Step::Structure
            }
            op::APPENDS => {
                self.appends()?;
                Step::Structure
            }
            op::BINPUT => self.skip(1)?,
            op::LONG_BINPUT => self.skip(4)?,
            op::FRAME => self.skip(8)?,
            op::PUT => self.line().map(|_| Step::Structure)?,
            op::MEMOIZE => Step::Structure,
            _ => Step::End,
        })
    }

    fn number(&mut self) {
        match self.stack.last_mut() {
            Some(Slot::Numbers(count)) => *count += 1,
            _ => self.stack.push(Slot::Numbers(1)),
        }
    }

    /// Moves one item from the top into the list below.
    fn append(&mut self) -> Option<()> {
        match self.stack.pop()? {
            Slot::Numbers(count) => {
                if count > 1 {
                    self.stack.push(Slot::Numbers(count - 1));
                }
                self.add(1, Vec::new())
            }
            Slot::List { count, rows } => self.add(1, shape_of(count, rows)?),
            Slot::Mark => None,
        }
    }

    /// Moves all items above the mark into the list below it.
    fn appends(&mut self) -> Option<()> {
        let mark = self.stack.iter().rposition(|slot| matches!(slot, Slot::Mark))?;
        let items = self.stack.split_off(mark);
        for item in items.into_iter().skip(1) {
            match item {
                Slot::Numbers(count) => self.add(count, Vec::new())?,
                Slot::List { count, rows } => self.add(1, shape_of(count, rows)?)?,
                Slot::Mark => return None,
            }
        }
        Some(())
    }

    fn add(&mut self, more: u64, shape: Vec<u64>) -> Option<()> {
        let Slot::List { count, rows } = self.stack.last_mut()? else { return None };
        if rows.get_or_insert_with(|| shape.clone()) != &shape {
            return None;
        }
        *count += more;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*array)
    }

    fn skip(&mut self, count: usize) -> Option<Step> {
        self.rest = self.rest.get(count..)?;
        Some(Step::Structure)
    }

    fn line(&mut self) -> Option<&str> {
        let length = self.rest.iter().position(|&byte| byte == b'\n')?;
        let line = &self.rest[..length];
        self.rest = &self.rest[length + 1..];
        std::str::from_utf8(line).ok().map(str::trim)
    }
}

/// The shape of a list that is itself an item.
fn shape_of(count: u64, rows: Option<Vec<u64>>) -> Option<Vec<u64>> {
    let mut shape = vec![count];
    shape.extend(rows.unwrap_or_default());
    (shape.len() < DEPTH_MAX).then_some(shape)
}

/// Appends a number as torch's constructors convert it.
fn push(dtype: DType, number: Number, out: &mut Vec<u8>) -> Option<()> {
    let (int, float) = match number {
        Number::Int(int) => (int, int as f64),
        Number::Float(float) => (float as i64, float),
    };
    match dtype {
        DType::Float64 => out.extend(float.to_le_bytes()),
        DType::Float32 => out.extend((float as f32).to_le_bytes()),
        DType::Float16 => out.extend(f16::from_f64(float).to_le_bytes()),
        DType::BFloat16 => out.extend(bf16::from_f64(float).to_le_bytes()),
        DType::Int64 => out.extend(int.to_le_bytes()),
        DType::Int32 => out.extend((int as i32).to_le_bytes()),
        DType::Int16 => out.extend((int as i16).to_le_bytes()),
        DType::Int8 => out.extend((int as i8).to_le_bytes()),
        DType::UInt8 => out.extend((int as u8).to_le_bytes()),
        DType::Bool => out.push(u8::from(int != 0)),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(opcodes: &[u8]) -> Option<(Vec<u64>, usize, Vec<u8>)> {
        let mut out = Vec::new();
        let numbers = read_numbers(opcodes, DType::Int16, &mut out)?;
        Some((numbers.shape, numbers.length, out))
    }

    #[test]
    fn lists_of_all_protocols_are_read() {
        // What follows ']' of [1, 258].
        assert_eq!(read(b"q\x01(K\x01M\x02\x01e\x85R"), Some((vec![2], 9, vec![1, 0, 2, 1])));
        assert_eq!(read(b"\x94(K\x01M\x02\x01e\x85"), Some((vec![2], 8, vec![1, 0, 2, 1])));
        // What follows '(l' of [1, 258] in protocol 0.
        assert_eq!(read(b"p0\nI1\naI258\na."), Some((vec![2], 13, vec![1, 0, 2, 1])));
        // [[1], [2]], [[], []] and [].
        assert_eq!(read(b"(]K\x01a]K\x02ae."), Some((vec![2, 1], 10, vec![1, 0, 2, 0])));
        assert_eq!(read(b"(]]e."), Some((vec![2, 0], 4, vec![])));
        assert_eq!(read(b"."), Some((vec![0], 0, vec![])));
    }

    #[test]
    fn what_is_no_list_of_equal_rows_is_none() {
        for opcodes in [
            &b"(]K\x01a]K\x02aK\x03ae."[..],
            b"(]K\x01aK\x02e.",
            b"K\x01.",
            b"(K\x01.",
            b"a.",
            b"(h\0e.",
            b"K",
        ] {
            assert_eq!(read(opcodes), None, "{}", opcodes.escape_ascii());
        }
        assert_eq!(read(&b"]".repeat(100)), None);
    }
}
