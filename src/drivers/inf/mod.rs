//! Setup information files (INF): what a driver package tells Windows about itself.
//!
//! Format: "INF file sections and directives" of Microsoft's driver documentation.

pub mod facts;

pub use facts::{
    CopyFile, DirPath, EventLogFacts, Facts, Guid, Install, Model, RegAction, RegRoot, RegValue, ServiceFacts, Text,
};
