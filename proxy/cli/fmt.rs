//! `sluice fmt`.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;
use sluice_schema::{Document, Report, fmt, texts};

use crate::args::{Fmt, Format};
use crate::exit::{self, Code, Failure};
use crate::{load, say};

/// Runs `sluice fmt`: 0 fine, 2 where a file is no TOML, 3 under `--check` where a file would change.
/// A file that cannot be laid out stays as it is, the others are written all the same.
pub(crate) fn run(args: &Fmt) -> Result<Code, Failure> {
    let (mut reports, mut changed) = (Vec::new(), Vec::new());
    for path in &args.paths {
        for document in texts(path).unwrap_or_else(|report| {
            reports.push(report);
            Vec::new()
        }) {
            match fmt(&document) {
                Ok(text) if text == document.text => {}
                Ok(text) => changed.push(Document { text, ..document }),
                Err(report) => reports.push(report),
            }
        }
    }
    if args.format == Format::Text {
        reports.iter().for_each(load::print);
    }
    for document in changed.iter().filter(|_| !args.check) {
        write(&document.path, &document.text)?;
    }
    show(&reports, &changed, args)?;
    Ok(match (!reports.is_empty(), args.check && !changed.is_empty()) {
        (true, _) => exit::USAGE,
        (false, true) => exit::CHECK,
        (false, false) => exit::OK,
    })
}

fn show(reports: &[Report], changed: &[Document], args: &Fmt) -> Result<(), Failure> {
    let paths = || changed.iter().map(|document| document.path.display().to_string());
    let verb = if args.check { "would change" } else { "changed" };
    say::result(&match args.format {
        Format::Text => paths().map(|path| format!("{verb} {path}\n")).collect::<String>(),
        Format::Json => {
            let findings: Vec<_> = reports.iter().flat_map(Report::findings).collect();
            format!(
                "{}\n",
                json!({verb.replace(' ', "_"): paths().collect::<Vec<_>>(), "findings": findings})
            )
        }
    })
}

/// Replaces a file at once, so that an edge that watches it never reads half of it. Owner and mode stay.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let path = fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    let beside = beside(&path);
    let written = replace(&path, &beside, text);
    if written.is_err() {
        let _was_never_made = fs::remove_file(&beside);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, beside: &Path, text: &str) -> std::io::Result<()> {
    let old = fs::metadata(path)?;
    let mut file = File::create_new(beside)?;
    file.set_permissions(old.permissions())?;
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        chown(beside, Some(old.uid()), Some(old.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(beside, path)
}

/// A hidden name in the same folder, which no configuration reads.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}", std::process::id()))
}
