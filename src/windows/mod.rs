//! What is in the guest, and what Windows needs to find there.
