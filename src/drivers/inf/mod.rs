//! Setup information files (INF): what a driver package tells Windows about itself.
//!
//! [`Inf::parse`] reads the text into sections; [`Inf::facts`] answers what it says to one guest. Format: "INF file
//! sections and directives" of Microsoft's driver documentation.

mod columns;
mod document;
mod error;
pub mod facts;
mod for_guest;
mod install;
mod lex;
mod models;
mod notes;
mod number;
mod registry;
mod strings;
mod target;
mod text;
mod version;

pub use document::{Inf, LANGUAGE_DEFAULT};
pub use facts::{
    Companions, CopyFile, DirPath, EventLogFacts, Facts, Guid, Install, Model, RegAction, RegRoot, RegValue,
    ServiceFacts, Text,
};
pub use lex::{Line, Section};
pub use target::{Misfit, TargetOs};
pub use text::SIZE_MAX;
