//! Registry hives: real ones, foreign readers, models, damage.

mod command;
mod corpus;
mod damage;
mod edges;
mod foreign;
mod hostile;
mod image;
mod logs;
mod logs_made;
mod model;
mod odd;
pub mod support;
mod text;

tests![in command, corpus, damage, edges, hostile, image, logs, logs_made, model, odd, text;];
