//! The service program of the first boot: rebuilt and compared, its rules held against real data, and run by the service
//! manager of Wine.

mod agreement;
mod build;
mod image;
mod program;
mod script;
mod steps;
pub mod wine;

tests![in agreement, build, image, program, script, steps;];
