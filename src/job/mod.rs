//! Whole jobs as library calls, and their reports.
