//! A saved plan for people: what is changed, what was there before, and whether the guest boots, as terminal text,
//! Markdown or HTML.
//!
//! A [`Review`] is made from a [`PlanDocument`](super::saved::PlanDocument) and from nothing else, so it shows what is
//! applied. It is one model with three printers. Every string of the document can be chosen by others: each printer
//! escapes all of them in its own way.

mod build;
mod html;
mod markdown;
mod model;
mod page;
mod registry;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use html::write_html;
pub use model::{Item, Line, Mark, Review, Section};
pub(crate) use page::{PAGE_END, page, page_head, page_start};
pub(crate) use registry::planned_lines;
