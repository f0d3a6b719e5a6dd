//! Registry hives: real ones, foreign readers, models, damage.

mod corpus;
mod logs;
mod logs_made;
mod support;
