//! Collects the edits of a plan: each request says what shall be, and becomes an edit only if it is not so already.

mod builder;
mod desired;
mod protection;

pub(super) use builder::PlanBuilder;
pub(super) use desired::Desired;
