//! NBD URIs: `nbd://HOST[:PORT][/EXPORT]` and `nbd+unix:///[EXPORT]?socket=PATH`.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::{folder_of, is_nbd_name};

/// The port of a URI without one.
const PORT: u16 = 10809;
/// Longest name of an export, in bytes.
const EXPORT_MAX: usize = 4096;

/// The forms that are understood.
const FORMS: &str = "write nbd://HOST:PORT/EXPORT or 'nbd+unix:///EXPORT?socket=PATH'";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A host (a name or an address, IPv6 without brackets) and a port.
    Tcp(String, u16),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

/// The name of an image that an NBD server exports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NbdUri {
    /// Where the server listens.
    pub address: Address,
    /// Name of the export; may be empty.
    pub export: String,
    given: String,
}

impl NbdUri {
    /// Parses a name for which [`is_nbd_name`](crate::host::is_nbd_name) holds.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for TLS and vsock, [`Kind::Usage`] for all else that is not one of the two forms.
    pub fn parse(name: &Path) -> Result<Self> {
        let given = name.to_str().ok_or_else(|| refused(name, "not UTF-8", FORMS))?;
        let Some((scheme, rest)) = given.split_once("://") else {
            return Err(refused(name, "the old form of QEMU, or without `//`", FORMS));
        };
        let is_unix = match scheme {
            "nbd" => false,
            "nbd+unix" => true,
            "nbds" | "nbds+unix" => return Err(refuse_tls(name)),
            _ => return Err(unsupported(name, "this scheme is not supported", FORMS)),
        };
        if rest.contains('#') {
            return Err(refused(name, "it has a fragment", "write %23 for # in the name of an export"));
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, export) = match place.split_once('/') {
            Some((authority, export)) => (authority, export),
            None => (place, ""),
        };
        let export = decode(export).and_then(|bytes| String::from_utf8(bytes).ok());
        let export = export.filter(|export| export.len() <= EXPORT_MAX && !export.contains('\0'));
        let export = export.ok_or_else(|| refused(name, "not the name of an export", FORMS))?;
        let socket = parse_query(name, query)?;
        let address = match (is_unix, socket) {
            (true, Some(socket)) if authority.is_empty() => Address::Unix(socket),
            (true, None) => return Err(refused(name, "the socket is missing", FORMS)),
            (true, Some(_)) => return Err(refused(name, "a host and a socket exclude each other", FORMS)),
            (false, Some(_)) => return Err(refused(name, "a socket belongs to nbd+unix://", FORMS)),
            (false, None) => parse_authority(authority).ok_or_else(|| refused(name, "not a host and a port", FORMS))?,
        };
        Ok(Self { address, export, given: given.to_owned() })
    }

    /// The URI of an export that is named in another way.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse), and of [`to_portable`](Self::to_portable).
    pub(super) fn of_parts(address: Address, export: String) -> Result<Self> {
        let given = Self { address, export, given: String::new() }.to_portable()?;
        Self::parse(Path::new(&given))
    }

    /// The URI with nothing in it that depends on the present folder, as QEMU reads it.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] when the path of the socket is not UTF-8.
    pub(crate) fn to_portable(&self) -> Result<String> {
        let export = encode(&self.export);
        match &self.address {
            Address::Tcp(host, port) if host.contains(':') => Ok(format!("nbd://[{host}]:{port}/{export}")),
            Address::Tcp(host, port) => Ok(format!("nbd://{}:{port}/{export}", encode(host))),
            Address::Unix(path) => {
                let path = std::path::absolute(path).ok().and_then(|path| path.to_str().map(encode));
                let what = "the path of the socket is not UTF-8";
                let path =
                    path.ok_or_else(|| unsupported(Path::new(&self.given), what, "give the socket another name"))?;
                Ok(format!("nbd+unix:///{export}?socket={path}"))
            }
        }
    }

    /// Server and export, the same however the URI is spelled, in one text.
    pub(super) fn canonical(&self) -> String {
        let (server, export) = self.key();
        format!("{server}/{export}")
    }

    /// Server and export, the same however the URI is spelled. A host that has two names has two.
    pub(crate) fn key(&self) -> (String, String) {
        let server = match &self.address {
            Address::Tcp(host, port) => format!("{}:{port}", host.to_ascii_lowercase()),
            Address::Unix(path) => {
                if let Ok(path) = path.canonicalize() {
                    return (path.display().to_string(), self.export.clone());
                }
                // Of a server that is not there, the socket may not be either.
                let folder = folder_of(path).canonicalize().or_else(|_| std::path::absolute(folder_of(path)));
                let path = folder.map(|folder| folder.join(path.file_name().unwrap_or_default()));
                path.map_or_else(|_| self.to_string(), |path| path.display().to_string())
            }
        };
        (server, self.export.clone())
    }

    /// Whether the bytes pass over a network in the clear.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let Address::Tcp(host, _) = &self.address else { return false };
        let is_loopback = host.parse::<std::net::IpAddr>().map_or(host == "localhost", |address| address.is_loopback());
        !is_loopback
    }
}

impl fmt::Display for NbdUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given)
    }
}

/// Server and export that a URI names, the same however it is spelled; `None` for what is not a URI.
pub(crate) fn export_key(name: &Path) -> Option<(String, String)> {
    is_nbd_name(name).then(|| NbdUri::parse(name).ok().map(|uri| uri.key()))?
}

/// Whether both names are those of one export.
pub(crate) fn is_same_export(one: &Path, other: &Path) -> bool {
    export_key(one).is_some_and(|one| export_key(other) == Some(one))
}

/// What a user should know of images that come over a network.
pub(crate) fn network_notes(names: &[PathBuf]) -> Vec<String> {
    let exposed = |name: &&PathBuf| is_nbd_name(name) && NbdUri::parse(name).is_ok_and(|uri| uri.is_exposed());
    let note = |name: &PathBuf| {
        format!("{} is read without encryption: everybody on the way can read and change it", name.display())
    };
    names.iter().filter(exposed).map(note).collect()
}

/// The socket of a query; every other key is refused.
fn parse_query(name: &Path, query: &str) -> Result<Option<PathBuf>> {
    let mut socket = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "socket" if socket.is_none() => {
                let value = decode(value).filter(|value| !value.is_empty());
                let value = value.ok_or_else(|| refused(name, "not the path of a socket", FORMS))?;
                if value.contains(&0) {
                    let what = "abstract sockets are not supported";
                    return Err(unsupported(name, what, "let the server listen at a path"));
                }
                socket = Some(PathBuf::from(OsString::from_vec(value)));
            }
            "socket" => return Err(refused(name, "two sockets", FORMS)),
            key if key.starts_with("tls-") => return Err(refuse_tls(name)),
            key => return Err(refused(name, &format!("the key {key:?} is not known"), FORMS)),
        }
    }
    Ok(socket)
}

/// `HOST`, `HOST:PORT` or `[IPV6]:PORT`.
fn parse_authority(authority: &str) -> Option<Address> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok().filter(|p| *p > 0)?,
        None if port.is_empty() => PORT,
        _ => return None,
    };
    let host = String::from_utf8(decode(host)?).ok()?;
    let is_host = !host.is_empty() && !host.contains(['@', '\0', ' ', '/']);
    is_host.then_some(Address::Tcp(host, port))
}

/// Decodes `%XX`; `None` where it is not followed by two hexadecimal digits.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    Some(decoded)
}

/// Writes all but letters, digits and `-._~/` as `%XX`.
fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn refused(name: &Path, what: &str, hint: &str) -> Error {
    refusal(Kind::Usage, name, what, hint)
}

fn unsupported(name: &Path, what: &str, hint: &str) -> Error {
    refusal(Kind::Unsupported, name, what, hint)
}

fn refusal(kind: Kind, name: &Path, what: &str, hint: &str) -> Error {
    Error::new(kind, Layer::Nbd, format!("cannot use the NBD URI: {what}"))
        .with_code(ErrorCode::NbdUri)
        .path(name.display().to_string())
        .hint(hint)
}

/// The refusal of TLS, with a proxy that does it in our place.
pub(super) fn refuse_tls(name: &Path) -> Error {
    Error::unsupported(Layer::Nbd, "NBD over TLS is not supported")
        .with_code(ErrorCode::NbdTls)
        .path(name.display().to_string())
        .hint("let nbdkit do it: nbdkit -f -U /run/p.sock nbd hostname=HOST tls=require, then 'nbd+unix:///?socket=/run/p.sock'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NbdUri> {
        assert!(is_nbd_name(Path::new(text)), "{text}");
        NbdUri::parse(Path::new(text))
    }

    #[test]
    fn both_forms_are_understood() {
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        let unix = |path: &str| Address::Unix(path.into());
        for (text, address, export) in [
            ("nbd://h", tcp("h", 10809), ""),
            ("nbd://h/", tcp("h", 10809), ""),
            ("nbd://h:1/a/b", tcp("h", 1), "a/b"),
            ("nbd://h//disk", tcp("h", 10809), "/disk"),
            ("nbd://[::1]:2/a%20b", tcp("::1", 2), "a b"),
            ("nbd+unix:///e?socket=/r%20un/s", unix("/r un/s"), "e"),
            ("nbd+unix://?socket=s", unix("s"), ""),
            ("nbd+unix:///?socket=/s", unix("/s"), ""),
        ] {
            let uri = parse(text).unwrap();
            assert_eq!((uri.address, uri.export.as_str()), (address, export), "{text}");
        }
    }

    #[test]
    fn all_else_is_refused_by_name() {
        for text in [
            "nbd:unix:/s:exportname=e",
            "nbd:h:10809",
            "nbd://",
            "nbd://h:0",
            "nbd://h:+5",
            "nbd://h:65536",
            "nbd://u@h",
            "nbd://[::1",
            "nbd://[h]",
            "nbd://h/a%2",
            "nbd://h/a%00b",
            "nbd://h/%ff",
            "nbd://h/a#b",
            "nbd://h/?socket=/s",
            "nbd://h/?foo=1",
            "nbd+unix:///x",
            "nbd+unix:///x?socket=",
            "nbd+unix://h/x?socket=/s",
            "nbd+unix:///?socket=/a&socket=/b",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.kind(), error.code()), (Kind::Usage, ErrorCode::NbdUri), "{text}: {error}");
        }
        for text in ["nbds://h", "nbds+unix:///?socket=/s", "nbd://h/?tls-type=x509"] {
            assert_eq!(parse(text).unwrap_err().code(), ErrorCode::NbdTls, "{text}");
        }
        for text in ["nbd+vsock://2:1", "nbd+unix:///?socket=%00a"] {
            assert_eq!(parse(text).unwrap_err().kind(), Kind::Unsupported, "{text}");
        }
    }

    #[test]
    fn a_portable_uri_means_the_same() {
        for text in ["nbd://h", "nbd://[::1]:2/a%20b", "nbd+unix:///%C3%A4%23?socket=/r%20un/s%26", "nbd://h//disk"] {
            let uri = parse(text).unwrap();
            let portable = parse(&uri.to_portable().unwrap()).unwrap();
            assert_eq!((uri.address, uri.export), (portable.address, portable.export), "{text}");
        }
        let relative = parse("nbd+unix:///?socket=s").unwrap().to_portable().unwrap();
        assert!(relative.starts_with("nbd+unix:///?socket=/") && relative.ends_with("/s"), "{relative}");
    }

    #[test]
    fn files_are_not_taken_for_exports() {
        for name in ["./nbd:x", "nbd", "nbd/x", "a/nbd://h", "NBD://h"] {
            assert!(!is_nbd_name(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn only_the_network_is_exposed() {
        let exposed = |text: &str| parse(text).unwrap().is_exposed();
        assert!(exposed("nbd://h") && exposed("nbd://10.0.0.1"));
        assert!(!exposed("nbd://127.0.0.2") && !exposed("nbd://[::1]") && !exposed("nbd://localhost"));
        assert!(!exposed("nbd+unix://?socket=s"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "nbd(\\+unix)?:[/a-z0-9%:?=&#\\[\\]@]{0,40}") {
            let _ = parse(&text);
        }
    }
}
