//! Collects the edits of a plan: each request describes the desired state, and becomes an edit only where the guest
//! differs.

mod boot;
mod builder;
mod carried;
mod desired;
mod job_steps;
mod present;
mod protection;
mod replace;
mod replaced_value;

pub(super) use builder::PlanBuilder;
pub(super) use desired::Desired;
pub(super) use present::Present;
pub(super) use replaced_value::ReplacedValue;
