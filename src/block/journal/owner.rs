//! The process that writes a journal. On file systems without locks nothing else keeps the next run from undoing one
//! that is still active.

/// Bytes of a boot's identity.
const BOOT_BYTES: usize = 16;

/// A process, told apart from all others that the machine ever ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The boot of the machine (zeros when the system does not tell).
    pub boot: [u8; BOOT_BYTES],
    /// Process ID.
    pub process: u32,
    /// When it began, in the system's ticks since the boot: numbers of processes are used again.
    pub began: u64,
}

impl Owner {
    /// Bytes in a journal.
    pub const BYTES: usize = BOOT_BYTES + 4 + 8;

    /// Identifies the current process.
    pub fn this() -> Self {
        let process = std::process::id();
        Self { boot: boot().unwrap_or_default(), process, began: began(process).unwrap_or(0) }
    }

    /// Whether it is another process than this one and runs on this machine now. A process on another machine is not
    /// seen.
    pub fn is_another_alive(&self) -> bool {
        *self != Self::this() && boot() == Some(self.boot) && began(self.process) == Some(self.began)
    }

    /// The form in which it is stored in a journal.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (boot, rest) = bytes.split_at_mut(BOOT_BYTES);
        let (process, began) = rest.split_at_mut(4);
        boot.copy_from_slice(&self.boot);
        process.copy_from_slice(&self.process.to_le_bytes());
        began.copy_from_slice(&self.began.to_le_bytes());
        bytes
    }

    /// The opposite of [`to_bytes`](Self::to_bytes); `None` when the length is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (boot, rest) = bytes.split_at_checked(BOOT_BYTES)?;
        let (process, began) = rest.split_at_checked(4)?;
        Some(Self {
            boot: boot.try_into().ok()?,
            process: u32::from_le_bytes(process.try_into().ok()?),
            began: u64::from_le_bytes(began.try_into().ok()?),
        })
    }
}

/// The identity of the machine's present boot.
fn boot() -> Option<[u8; BOOT_BYTES]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// Start time of a process of this machine, in ticks since the boot; `None` if no process has this ID.
fn began(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field, the program's name in parentheses, may hold anything; the time is the 22nd.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_is_seen_as_long_as_it_lives() {
        let this = Owner::this();
        assert!(!this.is_another_alive());
        assert_eq!(Owner::from_bytes(&this.to_bytes()), Some(this));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Owner { boot: this.boot, process: child.id(), began: began(child.id()).unwrap() };
        assert!(other.is_another_alive());
        // Its number alone, or its number in another boot, is not enough.
        assert!(!Owner { began: other.began + 1, ..other }.is_another_alive());
        assert!(!Owner { boot: [7; BOOT_BYTES], ..other }.is_another_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!other.is_another_alive());
    }
}
