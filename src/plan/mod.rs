//! Changes, plans, their application to the stage, and verification.
