//! `ptview ls`: the tensors of files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pt_format::{Flags, Limits};
use pt_index::{FileEntry, FileSource, TensorEntry};
use pt_view::{CheckedRecords, FileBytes, TensorView};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::cli::table::{bytes, escaped, shortened, write_table};
use crate::cli::{Error, Result, globals};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files to list; an index of shards (`….index.json`) stands for its shards, and a folder is a distributed checkpoint.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// List instead every global that unpickling the files would import: its verdict (known, opaque, dangerous), how often it
    /// is named and called. Nothing is imported. Dangerous ones are repeated on stderr, and the exit code is 1.
    #[arg(long, conflicts_with = "hash")]
    globals: bool,
    /// Add the SHA-256 of each tensor's contiguous, logical, little-endian bytes.
    #[arg(long)]
    hash: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    Table,
    /// One JSON array.
    Json,
    /// One JSON object a line, a line a tensor.
    Jsonl,
}

pub(crate) fn run(arguments: &Arguments, out: &mut dyn Write) -> Result {
    if arguments.globals {
        return globals::run(&arguments.files, arguments.format, out);
    }
    let mut failures = 0;
    let mut all = Vec::new();
    let files = with_shards(&arguments.files)?;
    for path in &files {
        let rows = match list(path, arguments.hash) {
            Ok(rows) => rows,
            Err(error) => {
                complain(&error.to_string());
                failures += 1;
                continue;
            }
        };
        for (name, fault) in rows.iter().filter_map(|row| Some((&row.name, row.fault.as_ref()?))) {
            complain(&format!("{}: tensor `{}`: {}", path.display(), escaped(name), escaped(fault)));
            failures += 1;
        }
        match arguments.format {
            Format::Table => {
                if files.len() > 1 {
                    writeln!(out, "{}:", escaped(&path.to_string_lossy())).map_err(Error::Output)?;
                }
                print_table(&rows, arguments.hash, out).map_err(Error::Output)?;
            }
            Format::Json => all.extend(rows.into_iter().map(|row| row.json)),
            Format::Jsonl => {
                for row in rows {
                    writeln!(out, "{}", row.json).map_err(Error::Output)?;
                }
            }
        }
    }
    if arguments.format == Format::Json {
        writeln!(out, "{:#}", Value::Array(all)).map_err(Error::Output)?;
    }
    reported(failures)
}

/// The error that sums up those that were told as they came.
pub(crate) fn reported(failures: usize) -> Result {
    match failures {
        0 => Ok(()),
        1 => Err(Error::Reported("1 problem, see above".into())),
        many => Err(Error::Reported(format!("{many} problems, see above"))),
    }
}

/// Puts the shards in the place of an index of shards.
fn with_shards(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        match pt_index::is_shard_index(path) {
            true => files.extend(pt_index::shard_files(path)?),
            false => files.push(path.clone()),
        }
    }
    Ok(files)
}

/// Errors of single files and tensors go to stderr as they come; the rest is still listed.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "ptview: {message}");
}

struct Row {
    name: String,
    fault: Option<String>,
    json: Value,
}

/// Lists the tensors of one file, or of the folder of a distributed checkpoint.
fn list(path: &Path, hash: bool) -> Result<Vec<Row>> {
    if !pt_index::is_distributed(path) {
        let source = FileSource::open(path)?;
        let index = pt_index::build_source(path, &source, &Limits::default())?;
        return Ok(index.files().flat_map(|file| list_file(file, path, &source, hash)).collect());
    }
    let index = pt_index::build_distributed(path, &Limits::default())?;
    let mut rows = Vec::new();
    for file in index.files() {
        let path = path.join(file.path());
        rows.extend(list_file(file, &path, &FileSource::open(&path)?, hash));
    }
    Ok(rows)
}

/// Lists the tensors of one file of an index. It is read by position: a mapped file could be cut off under our hands.
fn list_file(file: FileEntry<'_>, path: &Path, source: &FileSource, hash: bool) -> Vec<Row> {
    let checked = CheckedRecords::new(file.storages().map(|storage| storage.row() + 1).max().unwrap_or(0));
    let view = |entry| TensorView::new(entry, FileBytes::read(source, &checked));
    file.tensors().map(|entry| row(path, &view(entry), hash)).collect()
}

fn row(path: &Path, view: &TensorView<'_>, hash: bool) -> Row {
    let entry = view.entry();
    let mut fault = entry.fault().map(str::to_owned);
    let mut json = Map::new();
    json.insert("file".into(), json!(path.to_string_lossy()));
    json.insert("name".into(), json!(entry.name()));
    json.insert("path".into(), json!(entry.path()));
    json.insert("dtype".into(), json!(entry.dtype().map(|dtype| dtype.name())));
    json.insert("shape".into(), json!(entry.shape()));
    json.insert("stride".into(), json!(entry.stride()));
    json.insert("storage_offset".into(), json!(entry.storage_offset()));
    json.insert("requires_grad".into(), json!(entry.requires_grad()));
    json.insert("nbytes".into(), json!(entry.nbytes()));
    json.insert("offset".into(), json!(view.locate().map(|place| place.offset)));
    json.insert("zero_copy".into(), json!(view.caps().zero_copy));
    for (key, value) in peculiarities(entry) {
        json.insert(key.into(), value);
    }
    if hash {
        let digest = match hash_of(view) {
            Ok(digest) => digest,
            Err(error) => {
                fault = fault.or(Some(error.to_string()));
                None
            }
        };
        json.insert("sha256".into(), json!(digest));
    }
    if let Some(fault) = &fault {
        json.insert("fault".into(), json!(fault));
    }
    Row { name: entry.name().to_owned(), fault, json: Value::Object(json) }
}

/// What few tensors have, and only they show.
fn peculiarities(entry: TensorEntry<'_>) -> Vec<(&'static str, Value)> {
    let flag = |name, flag| entry.flags().contains(flag).then(|| (name, json!(true)));
    let mut found: Vec<_> = [
        flag("parameter", Flags::PARAMETER),
        flag("conj", Flags::CONJ),
        flag("neg", Flags::NEG),
        flag("quantized", Flags::QUANTIZED),
        flag("meta", Flags::META),
        flag("numpy", Flags::NUMPY),
        flag("part", Flags::PART),
    ]
    .into_iter()
    .flatten()
    .collect();
    if entry.layout() != pt_format::Layout::Strided {
        found.push(("layout", json!(entry.layout().name())));
    }
    let record = entry.storage().and_then(|storage| storage.record());
    if record.is_some_and(|record| record.is_written_as_text()) {
        found.push(("as_text", json!(true)));
    }
    if let Some(first) = entry.alias_of() {
        found.push(("alias_of", json!(first.name())));
    }
    if let Some(class) = entry.class() {
        found.push(("class", json!(class)));
    }
    found
}

/// Returns the digest of a tensor's logical bytes; `None` where there are none to speak of.
fn hash_of(view: &TensorView<'_>) -> Result<Option<String>> {
    // Composite and meta tensors have no bytes; of a tensor expanded from a few bytes to terabytes nobody wants them.
    const EXPANDED_BYTES_MAX: u64 = 1 << 30;
    let entry = view.entry();
    let has_bytes =
        entry.storage().is_some_and(|storage| storage.record().is_some()) && entry.fault().is_none();
    let packed = entry.dtype().is_some_and(|dtype| dtype.packing().is_some());
    let storage_bytes = entry.storage().map_or(0, |storage| storage.nbytes());
    let expanded = entry.nbytes().is_none_or(|bytes| bytes > storage_bytes.max(EXPANDED_BYTES_MAX));
    if !has_bytes || packed || expanded {
        return Ok(None);
    }
    let digest = Sha256::digest(view.to_bytes()?);
    Ok(Some(digest.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn print_table(rows: &[Row], hash: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut head = vec!["name", "dtype", "shape", "bytes", "offset", "where"];
    if hash {
        head.push("sha256");
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let text = |key: &str| row.json[key].as_str().unwrap_or("?").to_owned();
            let shape = row.json["shape"].as_array().map_or_else(
                || "?".into(),
                |sizes| format!("[{}]", sizes.iter().map(Value::to_string).collect::<Vec<_>>().join(", ")),
            );
            let mut cells = vec![
                if row.name.is_empty() { "(root)".into() } else { shortened(&escaped(&row.name)) },
                text("dtype"),
                shape,
                row.json["nbytes"].as_u64().map_or_else(|| "?".into(), bytes),
                row.json["offset"].as_u64().map_or_else(|| "-".into(), |offset| offset.to_string()),
                place(row),
            ];
            if hash {
                cells.push(row.json["sha256"].as_str().unwrap_or("-").to_owned());
            }
            cells
        })
        .collect();
    write_table(out, &head, &[3, 4], &cells)?;
    let total: u64 = rows.iter().filter_map(|row| row.json["nbytes"].as_u64()).fold(0, u64::saturating_add);
    let plural = if rows.len() == 1 { "" } else { "s" };
    writeln!(out, "{} tensor{plural}, {}", rows.len(), bytes(total))
}

/// One or two words on how the tensor can be had.
fn place(row: &Row) -> String {
    let json = &row.json;
    match () {
        () if row.fault.is_some() => "unreadable".into(),
        () if json["alias_of"].is_string() => "alias".into(),
        () if json["meta"] == true => "meta, no data".into(),
        () if json["layout"].is_string() => json["layout"].as_str().unwrap_or_default().to_owned(),
        () if json["zero_copy"] == true => "zero-copy".into(),
        () if json["as_text"] == true => "text".into(),
        () if json["offset"].is_null() => "compressed".into(),
        () => "copy".into(),
    }
}
