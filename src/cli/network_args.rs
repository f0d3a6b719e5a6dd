//! The options for the guest's network.

use crate::error::{Error, Kind, Layer, Result};
use crate::windows::{NetworkOptions, NewMac};

// The guest's network: the same for `inject`, `plan`, `convert --drivers` and a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct NetworkArgs {
    /// Give the new network adapters the settings of the guest's adapters at the first boot: addresses, gateways, DNS
    /// servers, metrics, routes, connection names; the adapters are matched by their MAC addresses
    #[arg(long)]
    pub keep_network: bool,

    /// With --keep-network: give the settings of the adapter with the MAC address OLD, or of the connection of that name,
    /// to the one with the MAC address NEW; repeatable
    #[arg(long, value_name = "OLD=NEW", value_parser = NewMac::parse)]
    pub mac: Vec<NewMac>,
}

impl NetworkArgs {
    /// The same for the library.
    ///
    /// # Errors
    /// [`Kind::Usage`] when addresses are given and nothing is to be kept.
    pub fn options(&self) -> Result<NetworkOptions> {
        if !self.keep_network && !self.mac.is_empty() {
            let what = "cannot use --mac (`mac`): it only says where the kept network settings go";
            return Err(Error::new(Kind::Usage, Layer::Cli, what).hint("add --keep-network (`keep_network: true`)"));
        }
        Ok(NetworkOptions { keep: self.keep_network, new_macs: self.mac.clone() })
    }
}
