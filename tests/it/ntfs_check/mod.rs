//! The checker, the decoders, the log's judgement, `$Secure`.

mod compress;
mod defects;
mod edits;
mod healthy;
mod hostile;
mod secure;
mod state;
pub mod surgeon;
mod unusual;

tests![in compress, defects, edits, healthy, hostile, secure, state, unusual;];
