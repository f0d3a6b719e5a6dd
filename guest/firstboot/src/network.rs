//! The former settings of an adapter, applied to the one with the same hardware address.

use alloc::string::String;
use alloc::vec::Vec;

use crate::commands::{Context, Ran};
use crate::job::Network;
use crate::outcome::{Kind, Outcome, StepResult};
use crate::text::{decimal, join};
use crate::windows::adapters::{self, Adapter};
use crate::windows::stop::{Deadline, Stopped};

/// Milliseconds between two looks for an adapter.
const POLL: u32 = 1000;
/// Seconds that one `netsh` may take.
const NETSH_SECONDS: u32 = 60;

impl Context<'_> {
    /// Waits for the adapter and runs the `netsh` lines of a network step; all of them, also after one that failed.
    ///
    /// # Errors
    /// When the program has to stop.
    pub fn configure(&self, network: &Network) -> Result<StepResult, Stopped> {
        self.log.line(&["network ", &network.mac_text, ", formerly \"", &network.name, "\""]);
        let ran = match self.find_adapter(network)? {
            Some(adapter) => self.apply(network, &adapter)?,
            None => {
                self.log.line(&["missing: no adapter has the address ", &network.mac_text]);
                Ran::without_code(Outcome::Missing, &join(&["no adapter has the address ", &network.mac_text]))
            }
        };
        Ok(StepResult {
            kind: Kind::Network,
            name: network.title().into(),
            required: false,
            outcome: ran.outcome,
            code: ran.code,
            detail: ran.detail,
        })
    }

    /// The adapter with the address: of several, as in a team, one that is connected.
    fn find_adapter(&self, network: &Network) -> Result<Option<Adapter>, Stopped> {
        let deadline = Deadline::after(network.seconds);
        loop {
            self.stop.check()?;
            let has_interface = |adapter: &Adapter| adapter.index != 0 || adapter.index6 != 0;
            let mut found: Vec<Adapter> = adapters::list();
            found.retain(|adapter| adapter.mac == network.mac && has_interface(adapter));
            if found.len() > 1 {
                self.log.line(&[&decimal(u32::try_from(found.len()).unwrap_or(0)), " adapters have this address"]);
            }
            if !found.is_empty() {
                let best = found.iter().position(|adapter| adapter.is_up).unwrap_or(0);
                return Ok(Some(found.swap_remove(best)));
            }
            match deadline.remaining() {
                0 => return Ok(None),
                remaining => self.stop.wait(remaining.min(POLL))?,
            }
        }
    }

    fn apply(&self, network: &Network, adapter: &Adapter) -> Result<Ran, Stopped> {
        let (index, index6) = (decimal(adapter.index), decimal(adapter.index6));
        self.log.line(&["found \"", &adapter.name, "\" (", &adapter.description, "), index ", &index]);
        let mut result = Ran::without_code(Outcome::Ok, &join(&["\"", &adapter.name, "\", index ", &index]));
        let program = self.places.system_program("netsh.exe");
        for command in &network.commands {
            let ran = match fill_in(command, &index, &index6, &adapter.name) {
                Some(arguments) => {
                    let line = join(&["\"", &program, "\" ", &arguments]);
                    self.run(&line, NETSH_SECONDS, |code| Outcome::of_command(code, &[0]))?
                }
                None => Ran::without_code(Outcome::Failed, "the connection's name has a quotation mark"),
            };
            if ran.outcome.is_failure() && !result.outcome.is_failure() {
                let why = if ran.detail.is_empty() { "" } else { ": " };
                result = Ran { detail: join(&["netsh ", command, why, &ran.detail]), ..ran };
            }
        }
        Ok(result)
    }
}

/// The arguments with the adapter's index and name in them.
fn fill_in(command: &str, index: &str, index6: &str, name: &str) -> Option<String> {
    if command.contains("{name}") && name.contains('"') {
        return None;
    }
    // The name comes last: it may contain what looks like a placeholder.
    let filled = command.replace("{index6}", index6).replace("{index}", index);
    Some(filled.replace("{name}", &join(&["\"", name, "\""])))
}
