//! YAML documents that users write: every key is declared once, in a table, with the function that reads its value.
//!
//! The table is the only list of known keys: an unknown key is a warning with its line and the nearest key of the table.
//! A document is read like this:
//!
//! ```
//! use winject::internals::error::Layer;
//! use winject::internals::yaml::{Document, Key};
//!
//! #[derive(Default)]
//! struct Run {
//!     threads: Option<u32>,
//!     dry_run: bool,
//! }
//!
//! const KEYS: &[Key<Run>] = &[
//!     Key::new(&["threads"], |run, field| field.number().map(|threads| run.threads = threads)),
//!     Key::new(&["dry_run", "simulate"], |run, field| field.flag().map(|dry_run| run.dry_run = dry_run)),
//!     Key::without_effect(&["verbose"]),
//! ];
//!
//! # fn main() -> winject::Result<()> {
//! let mut document = Document::new("run.yaml", Layer::Cli).ignoring_case();
//! let map = document.parse("threads: 2\ndry_runn: yes\n", "a configuration", "write lines of the form `key: value`")?;
//! let mut run = Run::default();
//! document.read(&map, KEYS, &mut run)?;
//! assert_eq!(run.threads, Some(2));
//! assert_eq!(document.warnings(), ["run.yaml:2: unknown key `dry_runn`; did you mean `dry_run`?"]);
//! # Ok(())
//! # }
//! ```

mod document;
mod fault;
mod spelling;
mod value;

pub use document::{Document, Field, Key};
pub(crate) use spelling::nearest;
pub use value::{Entry, Map, Value};
