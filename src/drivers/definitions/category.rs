//! What a driver is for.

use std::fmt;

use serde::Serialize;

/// What a driver is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Disk controllers, whose drivers are registered offline.
    Storage,
    /// Network adapters (class `Net`).
    Network,
    /// The memory balloon of the hypervisor.
    Balloon,
    /// Input devices: keyboards, mice, tablets.
    Input,
    /// Display adapters (class `Display`).
    Gpu,
    /// Folders that the host shares with the guest.
    Filesystem,
    /// Serial ports of the hypervisor.
    Serial,
    /// Random numbers from the host.
    Rng,
    /// Anything else, by the name of its class or of the user's category.
    Other(String),
}

impl Category {
    /// The name as definition files write it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Storage => "storage",
            Self::Network => "network",
            Self::Balloon => "balloon",
            Self::Input => "input",
            Self::Gpu => "gpu",
            Self::Filesystem => "filesystem",
            Self::Serial => "serial",
            Self::Rng => "rng",
            Self::Other(name) => name,
        }
    }

    /// The category of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "storage" => Self::Storage,
            "network" => Self::Network,
            "balloon" => Self::Balloon,
            "input" => Self::Input,
            "gpu" => Self::Gpu,
            "filesystem" => Self::Filesystem,
            "serial" => Self::Serial,
            "rng" => Self::Rng,
            _ => Self::Other(name.to_owned()),
        }
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Category {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

crate::schema::json_schema_as!(Category, String);
