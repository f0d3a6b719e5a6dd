//! The steps of the first-boot job, which the areas of an injection add while they plan.

use super::builder::PlanBuilder;
use crate::windows::first_boot::description::Step;

impl PlanBuilder<'_> {
    /// Adds a step to the first-boot job. It runs by its kind, and after the steps of its kind that were added before.
    pub fn add_job_step(&mut self, step: Step) {
        self.job_steps.push(step);
    }

    /// Hands over the steps that were added.
    #[must_use]
    pub fn take_job_steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.job_steps)
    }
}
