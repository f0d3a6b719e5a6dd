//! The checker, the decoders, the log's judgement, `$Secure`.

mod compress;
mod defects;
mod surgeon;
