//! Persistent records of the network stack in `Control\Nsi`: binary keys as value names, binary data.
//!
//! Windows documents none of them. What is read here is what these sources agree on:
//!
//! - IPv4 addresses (`{eb004a00-…}\10`), IPv4 routes (`…\16`) and interfaces (`{eb004a11-…}\10`) of a real Windows 7 and 8.1
//!   hive, whose addresses, masks, gateways, names, GUIDs and MAC addresses stand in clear text elsewhere in it.
//! - IPv6 addresses (`{eb004a01-…}\10`): the same record with a longer address, as described in public by those who write
//!   such records. IPv6 routes: the same as those of IPv4 with longer addresses, in the order of fields that free
//!   implementations of this interface use.
//!
//! A record of any other length or form is not read.

use std::net::Ipv4Addr;

use super::adapter::{Ipv4Route, Ipv6Address, Ipv6Route};
use super::address::Mac;
use crate::error::Result;
use crate::guid::Guid;
use crate::hex;
use crate::hive::Hive;
use crate::windows::registry;

/// Most records of one kind that are read.
const RECORDS_MAX: usize = 4096;
/// Length of the data of an interface's record.
const INTERFACE_BYTES: usize = 2312;

/// An interface as the network stack numbers it (`NET_LUID`): 24 bits reserved, a 24-bit index, the type in 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Luid([u8; 8]);

impl Luid {
    /// The LUID of `NetLuidIndex` and `*IfType`; `None` when they are out of range.
    pub(super) fn new(index: u32, kind: u32) -> Option<Self> {
        let kind = u16::try_from(kind).ok()?.to_le_bytes();
        let [a, b, c, rest] = index.to_le_bytes();
        (rest == 0).then_some(Self([0, 0, 0, a, b, c, kind[0], kind[1]]))
    }
}

/// What the records say of all interfaces.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// MAC addresses by the interface's GUID.
    pub(super) macs: Vec<(Guid, Mac)>,
    /// IPv4 addresses that Windows avoids as source.
    pub(super) skipped_ipv4: Vec<(Luid, Ipv4Addr)>,
    /// IPv4 routes, without default gateways.
    pub(super) ipv4_routes: Vec<(Luid, Ipv4Route)>,
    /// IPv6 addresses.
    pub(super) ipv6_addresses: Vec<(Luid, Ipv6Address)>,
    /// IPv6 routes.
    pub(super) ipv6_routes: Vec<(Luid, Ipv6Route)>,
    /// How many records have another form.
    pub(super) unknown: usize,
}

/// Takes a record by its name and data; `None` when it is not one that is understood.
type TakeRecord<'a> = &'a mut dyn FnMut(&mut Records, &[u8], &[u8]) -> Option<()>;

impl Records {
    /// Reads the records of a control set.
    ///
    /// # Errors
    /// When the hive is damaged there.
    pub(super) fn read(hive: &Hive, control_set: &str) -> Result<Self> {
        let mut out = Self::default();
        let key = |module: &str, table: &str| {
            format!("{control_set}\\Control\\Nsi\\{{eb004a{module}-9b1a-11d4-9123-0050047759bc}}\\{table}")
        };
        let mut each = |key: String, take: TakeRecord<'_>| -> Result<()> {
            let values = registry::key_values(hive, &key)?;
            out.unknown += values.len().saturating_sub(RECORDS_MAX);
            for (name, data) in values.into_iter().take(RECORDS_MAX) {
                let known = hex::decode(&name).and_then(|name| take(&mut out, &name, &data.bytes));
                out.unknown += usize::from(known.is_none());
            }
            Ok(())
        };
        each(key("11", "10"), &mut |out, _, data| {
            out.macs.extend(interface_mac(data)?);
            Some(())
        })?;
        each(key("00", "10"), &mut |out, name, data| {
            let (luid, address, state) = unicast::<4>(name.strip_suffix(&[0; 4])?, data)?;
            out.skipped_ipv4.extend(state.skip_as_source.then_some((luid, Ipv4Addr::from(address))));
            Some(())
        })?;
        each(key("00", "16"), &mut |out, name, _| {
            let (luid, [destination, next_hop], prefix) = route::<4>(name.strip_suffix(&[0; 4])?, 0)?;
            let route = Ipv4Route { destination: destination.into(), prefix, next_hop: next_hop.into() };
            out.ipv4_routes.extend((prefix > 0).then_some((luid, route)));
            Some(())
        })?;
        each(key("01", "10"), &mut |out, name, data| {
            let (luid, address, UnicastState { prefix, skip_as_source }) = unicast::<16>(name, data)?;
            out.ipv6_addresses.push((luid, Ipv6Address { address: address.into(), prefix, skip_as_source }));
            Some(())
        })?;
        each(key("01", "16"), &mut |out, name, _| {
            let (luid, [destination, next_hop], prefix) = route::<16>(name, 4)?;
            let route = Ipv6Route { destination: destination.into(), prefix, next_hop: next_hop.into() };
            out.ipv6_routes.push((luid, route));
            Some(())
        })?;
        Ok(out)
    }
}

/// The GUID and permanent MAC address of an interface; an interface without an Ethernet address gives none.
fn interface_mac(data: &[u8]) -> Option<Option<(Guid, Mac)>> {
    /// Where the GUID stands.
    const GUID: usize = 0x410;
    /// Where the permanent address stands: its length in two bytes, then the address.
    const ADDRESS: usize = 0x462;
    if data.len() != INTERFACE_BYTES {
        return None;
    }
    let guid = Guid(data.get(GUID..)?.first_chunk::<16>().copied()?);
    let (length, rest) = data.get(ADDRESS..)?.split_first_chunk::<2>()?;
    let address = (u16::from_le_bytes(*length) == 6).then(|| rest.first_chunk::<6>()).flatten();
    Some(address.and_then(|bytes| Mac::from_bytes(bytes)).map(|mac| (guid, mac)))
}

/// What the record of a unicast address says in addition to its key.
struct UnicastState {
    prefix: u8,
    skip_as_source: bool,
}

/// A unicast address: LUID and address; two lifetimes, two origins, length of the prefix, `SkipAsSource` (0xff: not set).
fn unicast<const N: usize>(name: &[u8], data: &[u8]) -> Option<(Luid, [u8; N], UnicastState)> {
    let (luid, address) = name.split_first_chunk::<8>()?;
    let address: [u8; N] = address.try_into().ok()?;
    let &[prefix, skip, ..] = data.get(16..)? else { return None };
    let bits = N.checked_mul(8)?;
    (usize::from(prefix) <= bits && prefix > 0).then_some((
        Luid(*luid),
        address,
        UnicastState { prefix, skip_as_source: skip == 1 },
    ))
}

/// A route: a zero, the destination, the length of its prefix, zeros, the LUID twice, the next hop; `padding` bytes of zero
/// before the LUIDs.
fn route<const N: usize>(name: &[u8], padding: usize) -> Option<(Luid, [[u8; N]; 2], u8)> {
    let (zero, rest) = name.split_first_chunk::<4>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (&prefix, rest) = rest.split_first()?;
    let (zeros, rest) = rest.split_at_checked(3 + 12 + padding)?;
    let (luid, rest) = rest.split_first_chunk::<8>()?;
    let (second, next_hop) = rest.split_first_chunk::<8>()?;
    let next_hop: [u8; N] = next_hop.try_into().ok()?;
    let is_plain = *zero == [0; 4] && zeros.iter().all(|&byte| byte == 0) && luid == second;
    let bits = N.checked_mul(8)?;
    (is_plain && usize::from(prefix) <= bits).then_some((Luid(*luid), [*destination, next_hop], prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_records_of_windows_7_are_read() {
        let name = hex::decode("00000007000006000a033a0500000000").unwrap();
        let data = hex::decode(&format!("ffffffffffffffff1000000010000000180000{}", "ff".repeat(29))).unwrap();
        let (luid, address, state) = unicast::<4>(name.strip_suffix(&[0; 4]).unwrap(), &data).unwrap();
        assert_eq!(Luid::new(7, 6), Some(luid));
        assert_eq!((Ipv4Addr::from(address), state.prefix), (Ipv4Addr::new(10, 3, 58, 5), 24));
        let name = format!("{}{}{}", "00".repeat(24), "00000007000006000000000700000600", "0a033a0100000000");
        let name = hex::decode(&name).unwrap();
        let (luid, [destination, next_hop], prefix) = route::<4>(name.strip_suffix(&[0; 4]).unwrap(), 0).unwrap();
        assert_eq!((Luid::new(7, 6), destination, prefix), (Some(luid), [0; 4], 0));
        assert_eq!(Ipv4Addr::from(next_hop), Ipv4Addr::new(10, 3, 58, 1));
    }

    #[test]
    fn no_bytes_make_the_reader_fail() {
        let mut random = crate::internals::random::Random::new(15);
        for _ in 0..20_000 {
            let length = usize::try_from(random.below(90)).unwrap();
            let name: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
            let _ = (unicast::<4>(&name, &name), unicast::<16>(&name, &name), interface_mac(&name));
            let _ = (route::<4>(&name, 0), route::<16>(&name, 4));
        }
        assert!(interface_mac(&[0xff; INTERFACE_BYTES]).unwrap().is_none());
    }
}
