//! What stands at the beginning of each answer in JSON: its kind and version.

/// Version of all answers, the value of their field `version`: it grows when a field changes its meaning or goes. New fields
/// may come at any time.
pub(super) const ANSWER_VERSION: u32 = 1;

/// What stands at the beginning of each answer in JSON.
#[derive(serde::Serialize)]
pub(super) struct Envelope<'a, T> {
    schema: String,
    version: u32,
    #[serde(flatten)]
    value: &'a T,
}

impl<'a, T> Envelope<'a, T> {
    pub(super) fn new(name: &str, value: &'a T) -> Self {
        Self { schema: format!("winject/{name}"), version: ANSWER_VERSION, value }
    }
}
