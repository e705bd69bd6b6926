//! `ptview info`: what an index holds.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use pt_index::{Column, Index, Leaf, SIDECAR_EXTENSION, Schema};
use serde_json::{Value, json};

use crate::cli::table::{bytes, escaped, plural, shortened, write_table};
use crate::cli::{Error, Report, Result};

/// Schemas and columns shown as text; JSON has all.
const ROWS_MAX: usize = 50;
/// Tensors of a schema shown as text.
const TENSORS_MAX: usize = 4;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// An index, or a file or folder that has one.
    #[arg(value_name = "INDEX")]
    path: PathBuf,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Report::Text)]
    format: Report,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    let path = &arguments.path;
    let is_index = path.extension().is_some_and(|extension| extension == SIDECAR_EXTENSION);
    let path = if is_index { path.clone() } else { pt_index::sidecar_path(path) };
    let index = pt_index::read(&path)?;
    let columns: Vec<_> = index.column_names().into_iter().filter_map(|name| index.column(name)).collect();
    let summaries: Vec<_> = columns.iter().map(Summary::of).collect();
    let printed = match arguments.format {
        Report::Json => print_json(&path, &index, &summaries, out),
        Report::Text => print_text(&path, &index, &summaries, out),
    };
    printed.map_err(Error::Output)
}

/// What the values of a column are like.
struct Summary<'i> {
    name: &'i str,
    kind: &'static str,
    missing: usize,
    distinct: usize,
    /// Of numbers.
    range: Option<(Leaf<'i>, Leaf<'i>)>,
}

impl<'i> Summary<'i> {
    fn of(column: &Column<'i>) -> Self {
        let mut kinds = HashSet::new();
        let mut values = HashSet::new();
        let mut missing = 0;
        let mut range: Option<(Leaf<'i>, Leaf<'i>)> = None;
        for leaf in column.iter() {
            if leaf == Leaf::None {
                missing += 1;
                continue;
            }
            kinds.insert(kind(leaf));
            values.insert(distinguished(leaf));
            if let Some(number) = number(leaf) {
                let (least, most) = range.get_or_insert((leaf, leaf));
                if self::number(*least).is_some_and(|least| number < least) {
                    *least = leaf;
                }
                if self::number(*most).is_some_and(|most| number > most) {
                    *most = leaf;
                }
            }
        }
        let mut kinds = kinds.into_iter();
        let kind = match (kinds.next(), kinds.next()) {
            (None, _) => "None",
            (Some(kind), None) => kind,
            _ => "mixed",
        };
        Self { name: column.name(), kind, missing, distinct: values.len(), range }
    }
}

fn kind(leaf: Leaf<'_>) -> &'static str {
    match leaf {
        Leaf::Bool(_) => "bool",
        Leaf::Int(_) => "int",
        Leaf::Float(_) => "float",
        Leaf::Str(_) => "str",
        _ => "None",
    }
}

fn number(leaf: Leaf<'_>) -> Option<f64> {
    match leaf {
        Leaf::Int(value) => Some(value as f64),
        Leaf::Float(value) => Some(value),
        _ => None,
    }
}

/// Something that two values share only if they are the same.
fn distinguished<'i>(leaf: Leaf<'i>) -> (&'static str, u64, &'i str) {
    match leaf {
        Leaf::Bool(value) => ("bool", value.into(), ""),
        Leaf::Int(value) => ("int", value as u64, ""),
        Leaf::Float(value) => ("float", value.to_bits(), ""),
        Leaf::Str(value) => ("str", 0, value),
        _ => ("None", 0, ""),
    }
}

fn json_of(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Bool(value) => json!(value),
        Leaf::Int(value) => json!(value),
        Leaf::Float(value) => json!(value),
        Leaf::Str(value) => json!(value),
        _ => Value::Null,
    }
}

fn shape_text(shape: Option<&[u64]>) -> String {
    shape.map_or_else(|| "[?]".into(), |shape| format!("{shape:?}"))
}

/// The tensors of a schema, as its first file has them.
fn tensors_text(schema: &Schema<'_>) -> String {
    let Some(file) = schema.files().next() else { return String::new() };
    let mut said: Vec<String> = file
        .tensors()
        .take(TENSORS_MAX)
        .map(|tensor| {
            let name = if tensor.name().is_empty() { "(root)" } else { tensor.name() };
            let dtype = tensor.dtype().map_or("?", |dtype| dtype.name());
            format!("{}: {dtype}{}", shortened(&escaped(name)), shape_text(tensor.shape()))
        })
        .collect();
    if file.tensors().len() > TENSORS_MAX {
        said.push("…".into());
    }
    said.join(", ")
}

fn print_text(path: &Path, index: &Index, columns: &[Summary<'_>], out: &mut dyn Write) -> io::Result<()> {
    let index_bytes = index.as_bytes().len() as u64;
    let files = index.file_count();
    writeln!(
        out,
        "{}: {} of {}, {}; {} of index, {} a file{}",
        escaped(&path.to_string_lossy()),
        plural(files, "file"),
        bytes(index.data_bytes()),
        plural(index.tensor_count(), "tensor"),
        bytes(index_bytes),
        bytes(index_bytes / (files as u64).max(1)),
        match index.skipped().len() {
            0 => String::new(),
            skipped => format!("; {} skipped (`ptview index --report` says why)", plural(skipped, "file")),
        },
    )?;
    let rows: Vec<_> = index
        .schemas()
        .take(ROWS_MAX)
        .map(|schema| {
            let tensors = schema.files().next().map_or(0, |file| file.tensors().len());
            let columns = schema.columns().len();
            vec![
                schema.number().to_string(),
                schema.file_count().to_string(),
                tensors.to_string(),
                columns.to_string(),
                tensors_text(&schema),
            ]
        })
        .collect();
    write_table(out, &["schema", "files", "tensors", "columns", "first file"], &[0, 1, 2, 3], &rows)?;
    cut(index.schemas().len(), "schema", out)?;
    if columns.is_empty() {
        return Ok(());
    }
    let rows: Vec<_> = columns
        .iter()
        .take(ROWS_MAX)
        .map(|column| {
            let shown = |leaf| json_of(leaf).to_string();
            vec![
                shortened(&escaped(column.name)),
                column.kind.to_owned(),
                column.distinct.to_string(),
                column.missing.to_string(),
                column
                    .range
                    .map_or_else(String::new, |(least, most)| format!("{} … {}", shown(least), shown(most))),
            ]
        })
        .collect();
    write_table(out, &["column", "kind", "distinct", "missing", "range"], &[2, 3], &rows)?;
    cut(columns.len(), "column", out)
}

fn cut(count: usize, what: &str, out: &mut dyn Write) -> io::Result<()> {
    match count.checked_sub(ROWS_MAX) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(out, "… and {} more; `--format json` has all", plural(more, what)),
    }
}

fn print_json(path: &Path, index: &Index, columns: &[Summary<'_>], out: &mut dyn Write) -> io::Result<()> {
    let schemas: Vec<_> = index
        .schemas()
        .map(|schema| {
            let file = schema.files().next();
            let tensors = file.into_iter().flat_map(|file| file.tensors()).map(|tensor| {
                json!({
                    "name": tensor.name(),
                    "dtype": tensor.dtype().map(|dtype| dtype.name()),
                    "shape": tensor.shape(),
                })
            });
            let columns = schema.columns();
            json!({
                "files": schema.file_count(),
                "tensors": tensors.collect::<Vec<_>>(),
                "columns": columns.map(|column| column.name()).collect::<Vec<_>>(),
            })
        })
        .collect();
    let columns: Vec<_> = columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name,
                "kind": column.kind,
                "distinct": column.distinct,
                "missing": column.missing,
                "min": column.range.map(|(least, _)| json_of(least)),
                "max": column.range.map(|(_, most)| json_of(most)),
            })
        })
        .collect();
    let report = json!({
        "index": path.to_string_lossy(),
        "root": index.root(),
        "files": index.file_count(),
        "tensors": index.tensor_count(),
        "data_bytes": index.data_bytes(),
        "index_bytes": index.as_bytes().len(),
        "skipped": index.skipped().len(),
        "schemas": schemas,
        "columns": columns,
    });
    writeln!(out, "{report:#}")
}
