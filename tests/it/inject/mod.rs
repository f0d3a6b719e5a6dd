//! Tests of this layer; see the folder's files.
