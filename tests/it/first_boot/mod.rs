//! The service program of the first boot: rebuilt and compared, and run by the service manager of Wine.

mod build;
mod program;
mod wine;

tests![in build, program;];
