//! Containers, the copy-on-write stage, and commit.
