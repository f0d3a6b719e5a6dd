//! NBD exports as images name their backing files: URIs, and the other forms that QEMU reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::uri::{Address, NbdUri, refuse_tls};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::host::is_nbd_name;

/// What stands before the name of the export in QEMU's old form.
const EXPORT_NAME: &str = ":exportname=";

/// The export that an image calls `name`; `None` for a name that is not one of an export.
///
/// # Errors
/// When it is the name of an export that cannot be used.
pub(crate) fn named_export(name: &str) -> Option<Result<NbdUri>> {
    if let Some(json) = name.strip_prefix("json:") {
        return export_of_json(json);
    }
    match name.strip_prefix("nbd:").filter(|rest| !rest.starts_with("//")) {
        Some(old) => Some(export_of_old_form(name, old)),
        None => is_nbd_name(Path::new(name)).then(|| NbdUri::parse(Path::new(name))),
    }
}

/// `HOST:PORT` or `unix:PATH`, and after it `:exportname=NAME`.
fn export_of_old_form(name: &str, old: &str) -> Result<NbdUri> {
    let (server, export) = old.split_once(EXPORT_NAME).unwrap_or((old, ""));
    let address = match server.strip_prefix("unix:") {
        Some(path) => Address::Unix(PathBuf::from(path)),
        None => {
            let (host, port) = server.rsplit_once(':').ok_or_else(|| unsupported(name, "the port is missing"))?;
            tcp(name, host, port)?
        }
    };
    NbdUri::of_parts(address, export.to_owned())
}

fn tcp(name: &str, host: &str, port: &str) -> Result<Address> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().map_err(|_| unsupported(name, "not the number of a port"))?;
    Ok(Address::Tcp(host.to_owned(), port))
}

/// The options of the driver `nbd`, also below the driver `raw`; `None` for another driver.
fn export_of_json(json: &str) -> Option<Result<NbdUri>> {
    let mut options = BTreeMap::new();
    flatten("", &serde_json::from_str(json).ok()?, &mut options);
    if options.get("driver").is_some_and(|driver| driver == "raw") {
        options.remove("driver");
        // An option of `raw` itself (an offset, a size) is left, and not known.
        options = options
            .into_iter()
            .map(|(key, value)| (key.strip_prefix("file.").map_or_else(|| format!("raw.{key}"), str::to_owned), value))
            .collect();
    }
    (options.remove("driver")? == "nbd").then(|| export_of_options(options))
}

fn export_of_options(mut options: BTreeMap<String, String>) -> Result<NbdUri> {
    if options.keys().any(|key| key.starts_with("tls-")) {
        return Err(refuse_tls(Path::new("json:")));
    }
    let export = options.remove("export").unwrap_or_default();
    let kind = options.remove("server.type");
    let mut take = |key: &str| options.remove(&format!("server.{key}")).or_else(|| options.remove(key));
    let (path, host, port) = (take("path"), take("host"), take("port"));
    let address = match (kind.as_deref(), path, host, port) {
        (None | Some("unix"), Some(path), None, None) => Address::Unix(PathBuf::from(path)),
        (None | Some("inet"), None, Some(host), port) => tcp("json:", &host, port.as_deref().unwrap_or("10809"))?,
        _ => return Err(unsupported("json:", "neither a host nor the path of a socket")),
    };
    match options.keys().next() {
        Some(key) => Err(unsupported("json:", &format!("the option {key:?} is not known"))),
        None => NbdUri::of_parts(address, export),
    }
}

/// The values with their keys as QEMU flattens them: `server.path`.
fn flatten(prefix: &str, value: &Value, options: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&key, value, options);
            }
        }
        Value::String(text) => drop(options.insert(prefix.to_owned(), text.clone())),
        other => drop(options.insert(prefix.to_owned(), other.to_string())),
    }
}

fn unsupported(name: &str, what: &str) -> Error {
    Error::new(Kind::Unsupported, Layer::Nbd, format!("cannot use the name of an export: {what}"))
        .with_code(ErrorCode::NbdUri)
        .path(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_of_qemu_are_understood() {
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        let unix = |path: &str| Address::Unix(path.into());
        for (name, address, export) in [
            ("nbd://h/e", tcp("h", 10809), "e"),
            ("nbd+unix:///a%20b?socket=/s", unix("/s"), "a b"),
            ("nbd:h:1", tcp("h", 1), ""),
            ("nbd:[::1]:1:exportname=a:b", tcp("::1", 1), "a:b"),
            ("nbd:unix:/r:un/s:exportname=e", unix("/r:un/s"), "e"),
            (r#"json:{"driver":"nbd","server":{"type":"unix","path":"/s"},"export":"e"}"#, unix("/s"), "e"),
            (r#"json:{"driver":"nbd","server.type":"inet","server.host":"h","server.port":"1"}"#, tcp("h", 1), ""),
            (r#"json:{"driver":"nbd","host":"::1","port":1,"export":"e"}"#, tcp("::1", 1), "e"),
            (r#"json:{"driver":"nbd","path":"/s"}"#, unix("/s"), ""),
            (r#"json:{"driver":"raw","file":{"driver":"nbd","path":"/s","export":"é#"}}"#, unix("/s"), "é#"),
            (
                r#"json:{"driver":"raw","file.driver":"nbd","file.server.type":"unix","file.server.path":"/s"}"#,
                unix("/s"),
                "",
            ),
        ] {
            let uri = named_export(name).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!((uri.address, uri.export.as_str()), (address, export), "{name}");
        }
    }

    #[test]
    fn an_option_that_changes_what_is_read_is_not_passed_over() {
        for name in [
            "nbd:h",
            "nbd:h:x",
            "nbd:unix:",
            "nbd:",
            "nbds://h",
            r#"json:{"driver":"nbd"}"#,
            r#"json:{"driver":"nbd","path":"/s","host":"h"}"#,
            r#"json:{"driver":"nbd","path":"/s","x-dirty-bitmap":"b"}"#,
            r#"json:{"driver":"nbd","path":"/s","tls-creds":"t"}"#,
            r#"json:{"driver":"nbd","server":{"type":"vsock","cid":"2","port":"1"}}"#,
            r#"json:{"driver":"raw","offset":512,"file":{"driver":"nbd","path":"/s"}}"#,
        ] {
            assert!(named_export(name).unwrap().is_err(), "{name}");
        }
    }

    #[test]
    fn files_are_not_exports() {
        for name in
            ["a", "./nbd:x", "file:nbd:x", r#"json:{"driver":"file","filename":"nbd://h"}"#, "json:{", "json:[]"]
        {
            assert!(named_export(name).is_none(), "{name}");
        }
    }
}
