//! Registry hives: reader, editor, log replay and checker.
