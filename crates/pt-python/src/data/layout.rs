//! What becomes of samples that differ in length.

use pt_loader::{BatchPlan, Lengths, Mode, Pad, Ragged, Side, To};
use pyo3::prelude::*;

use crate::error::{Class, Result};

/// How samples that differ in length are laid out in a batch: one behind the other, or padded.
#[pyclass(frozen, module = "ptview._ptview")]
pub(crate) struct Layout {
    pub(crate) ragged: Ragged,
    /// Whether what is too long is cut; else it is an error.
    pub(crate) truncate: bool,
}

#[pymethods]
impl Layout {
    /// One behind the other.
    #[staticmethod]
    fn joined() -> Self {
        Self { ragged: Ragged::Joined, truncate: true }
    }

    /// Padded; `to` is `None` for the longest of the batch, a length along the first dimension, or one or none for each that is
    /// ragged.
    #[staticmethod]
    fn padded(
        to: Option<Target>,
        mode: &str,
        value: f64,
        side: &str,
        truncate: bool,
        mask: bool,
    ) -> Result<Self> {
        let mode = match mode {
            "constant" => Mode::Constant(value),
            "zero" => Mode::Zero,
            "reflect" => Mode::Reflect,
            "replicate" => Mode::Replicate,
            _ => {
                let modes = "\"constant\", \"zero\", \"reflect\" or \"replicate\"";
                return Err(Class::Error.error(format!("mode is {modes}, not {mode:?}")));
            }
        };
        let side = match side {
            "right" => Side::Right,
            "left" => Side::Left,
            _ => return Err(Class::Error.error(format!("side is \"right\" or \"left\", not {side:?}"))),
        };
        let to = match to {
            None => To::Longest,
            Some(Target::First(length)) => To::Length(length),
            Some(Target::Each(lengths)) => {
                let most = Lengths::COUNT_MAX;
                let too_many =
                    || Class::Error.error(format!("to gives {} lengths; there can be {most}", lengths.len()));
                To::Each(Lengths::new(&lengths).ok_or_else(too_many)?)
            }
        };
        Ok(Self { ragged: Ragged::Pad(Pad { to, mode, side, mask }), truncate })
    }
}

/// How long samples become, as Python says it.
#[derive(FromPyObject)]
enum Target {
    First(u64),
    Each(Vec<Option<u64>>),
}

impl Layout {
    /// Refuses samples that would have to be cut, where that is not wanted.
    pub(crate) fn check(&self, plan: &BatchPlan) -> Result<()> {
        let (false, Ragged::Pad(Pad { to, .. })) = (self.truncate, self.ragged) else {
            return Ok(());
        };
        for field in plan.fields().iter().filter(|field| field.field().is_ragged) {
            for dim in 0..field.field().shape.len() {
                let Some(to) = to.along(field.field(), dim) else { continue };
                let has = |at: usize| match field.field().is_grid() {
                    true => field.sizes(at).get(dim).copied(),
                    false => field.lengths().get(at).copied(),
                };
                let long = (0..plan.len()).find_map(|at| Some((at, has(at).filter(|&has| has > to)?)));
                if let Some((at, has)) = long {
                    let (name, sample) = (field.name(), plan.samples()[at]);
                    let along = if dim > 0 { format!(" along dimension {dim}") } else { String::new() };
                    return Err(Class::Error.error(format!(
                        "sample {sample}: `{name}` has {has} steps{along}, longer than {to}; truncate=True would cut it"
                    )));
                }
            }
        }
        Ok(())
    }
}
