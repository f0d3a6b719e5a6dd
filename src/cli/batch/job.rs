//! The jobs of a batch.

/// A job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobKind {
    Inspect,
    Check,
    Inject,
    Convert,
}

impl JobKind {
    pub(super) const ALL: [Self; 4] = [Self::Inspect, Self::Check, Self::Inject, Self::Convert];

    /// The name of its command.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Check => "check",
            Self::Inject => "inject",
            Self::Convert => "convert",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|job| job.name() == name)
    }

    /// Whether its command takes a number of threads.
    pub(super) fn has_threads(self) -> bool {
        matches!(self, Self::Inject | Self::Convert)
    }
}
