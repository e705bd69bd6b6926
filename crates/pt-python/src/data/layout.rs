//! What becomes of samples that differ in length.

use pt_loader::{BatchPlan, Mode, Pad, Ragged, Side, To};
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

    /// Padded; `to` is `None` for the longest of the batch.
    #[staticmethod]
    fn padded(
        to: Option<u64>,
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
        let to = to.map_or(To::Longest, To::Length);
        Ok(Self { ragged: Ragged::Pad(Pad { to, mode, side, mask }), truncate })
    }
}

impl Layout {
    /// Refuses samples that would have to be cut, where that is not wanted.
    pub(crate) fn check(&self, plan: &BatchPlan) -> Result<()> {
        let (false, Ragged::Pad(Pad { to: To::Length(to), .. })) = (self.truncate, self.ragged) else {
            return Ok(());
        };
        for field in plan.fields() {
            if let Some(at) = field.lengths().iter().position(|&length| length > to) {
                let (name, sample, length) = (field.name(), plan.samples()[at], field.lengths()[at]);
                return Err(Class::Error.error(format!(
                    "sample {sample}: `{name}` has {length} steps, longer than {to}; truncate=True would cut it"
                )));
            }
        }
        Ok(())
    }
}
