//! Options that concern the guest's network.

use super::address::Mac;

/// What becomes of the network settings. By default nothing: the new adapters get theirs by DHCP, as Windows gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Give the new adapters the settings that the former ones had.
    pub keep: bool,
    /// MAC addresses that the new machine has in place of the former ones.
    pub new_macs: Vec<NewMac>,
}

/// A MAC address of the new machine, and the adapter whose settings it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMac {
    /// The former adapter.
    pub former: FormerAdapter,
    /// The MAC address of the new one.
    pub new: Mac,
}

/// How an adapter of the guest is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FormerAdapter {
    /// By its MAC address.
    Mac(Mac),
    /// By the name of its connection.
    Connection(String),
}

impl NewMac {
    /// Parses `OLD=NEW`: OLD is a MAC address or the name of a connection, NEW a MAC address. A name may hold `=`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (former, new) =
            text.rsplit_once('=').ok_or("write OLD=NEW, with the MAC address of the new adapter last")?;
        let new = Mac::parse(new.trim()).ok_or_else(|| format!("{new:?} is not the MAC address of an adapter"))?;
        let former = former.trim();
        if former.is_empty() {
            return Err("name the former adapter before the `=`: its MAC address, or its connection".to_owned());
        }
        let former = match Mac::parse(former) {
            Some(mac) => FormerAdapter::Mac(mac),
            None => FormerAdapter::Connection(former.to_owned()),
        };
        Ok(Self { former, new })
    }
}

impl std::fmt::Display for NewMac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.former {
            FormerAdapter::Mac(mac) => write!(f, "{mac}={}", self.new),
            FormerAdapter::Connection(name) => write!(f, "{name}={}", self.new),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_named_by_address_or_connection() {
        let parse = |text: &str| NewMac::parse(text);
        let new = Mac::parse("52:54:00:00:00:02").unwrap();
        let by_mac = parse("52-54-00-00-00-01=52:54:00:00:00:02").unwrap();
        assert_eq!(by_mac, NewMac { former: FormerAdapter::Mac(Mac::parse("525400000001").unwrap()), new });
        let by_name = parse("LAN = red=525400000002").unwrap();
        assert_eq!(by_name, NewMac { former: FormerAdapter::Connection("LAN = red".to_owned()), new });
        assert_eq!(parse(&by_name.to_string()), Ok(by_name));
        for wrong in ["", "x", "=52:54:00:00:00:02", "x=", "x=y", "x=01:00:5e:00:00:01", "x=52:54:00:00:00"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
