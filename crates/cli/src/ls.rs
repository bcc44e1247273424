//! `pinlane ls`

use comfy_table::{CellAlignment, Table, presets};
use pinlane::{Checkpoint, FileAccess};
use serde_json::json;

use crate::{
    args::LsArgs,
    checkpoint::{self, counted},
    output::{Failure, print},
};

/// What to list, checked: the checkpoint is open.
pub(crate) struct Config {
    checkpoint: Checkpoint,
    json: bool,
}

impl Config {
    /// Checks what was typed.
    ///
    /// # Errors
    ///
    /// As for [`checkpoint::open`].
    pub(crate) fn check(args: &LsArgs) -> Result<Self, Failure> {
        Ok(Self {
            checkpoint: checkpoint::open(&args.checkpoint, FileAccess::default())?,
            json: args.json,
        })
    }

    /// Lists the tensors and, below, how much all of them are.
    ///
    /// # Errors
    ///
    /// [`Failure::Run`] when the output can't be written.
    pub(crate) fn run(self) -> Result<bool, Failure> {
        if self.json {
            print(&format!("{:#}", self.document()))?;
            return Ok(true);
        }
        if !self.checkpoint.is_empty() {
            print(&self.table())?;
        }
        for (key, text) in self.checkpoint.metadata() {
            print(&format!("{}: {}", printable(key), printable(text)))?;
        }
        print(&format!(
            "{}, {} bytes in {}",
            counted(self.checkpoint.len(), "tensor"),
            self.checkpoint.bytes(),
            counted(self.checkpoint.shards().len(), "file"),
        ))?;
        Ok(true)
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        let several = self.checkpoint.shards().len() > 1;
        for entry in self.checkpoint.entries() {
            let mut row = vec![
                printable(entry.name()),
                entry.dtype().to_string(),
                format!("{:?}", entry.shape()),
                entry.bytes().to_string(),
            ];
            if several {
                let name = entry.shard().path().file_name().unwrap_or_default();
                row.push(printable(&name.to_string_lossy()));
            }
            table.add_row(row);
        }
        if let Some(bytes) = table.column_mut(3) {
            bytes.set_cell_alignment(CellAlignment::Right);
        }
        table.trim_fmt()
    }

    /// The same for programs: offsets are those in the file.
    fn document(&self) -> serde_json::Value {
        let files = self.checkpoint.shards().iter().map(|shard| {
            json!({
                "path": shard.path().display().to_string(),
                "bytes": shard.bytes(),
                "metadata": shard.metadata(),
            })
        });
        let tensors = self.checkpoint.entries().map(|entry| {
            let range = entry.file_range();
            json!({
                "name": entry.name(),
                "dtype": entry.dtype().name(),
                "shape": entry.shape(),
                "bytes": entry.bytes(),
                "file": entry.shard().path().display().to_string(),
                "file_range": [range.start, range.end],
            })
        });
        json!({ "files": files.collect::<Vec<_>>(), "tensors": tensors.collect::<Vec<_>>() })
    }
}

/// A text out of a file without what would do something to a terminal, such as escape sequences or further lines.
fn printable(text: &str) -> String {
    let show = |character: char| match character.is_control() {
        true => character.escape_debug().to_string(),
        false => character.to_string(),
    };
    text.chars().map(show).collect()
}
