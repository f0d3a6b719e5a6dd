//! What a path names: one file, or all that match its wildcards.

use glob::Pattern;

use super::files::{Files, Node, NodeKind};
use crate::error::{Error, ErrorCode, Kind, Layer, Result};
use crate::ntfs::format::name::NtfsName;

/// Most files that one path may name.
const MATCHES_MAX: usize = 1 << 20;
/// Most components of a path: more than Windows can open.
const DEPTH_MAX: usize = 1024;

/// A file that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its path on the volume, from the root on, between `/`; `/` is the root itself.
    pub path: String,
    /// The file.
    pub node: Node,
    /// Its name; empty for the root.
    pub name: NtfsName,
    /// The stream that was named; empty for the content.
    pub stream: String,
}

impl Found {
    /// The root folder of a volume.
    #[must_use]
    pub fn root(files: &Files<'_>) -> Self {
        Self { path: "/".to_owned(), node: files.root(), name: NtfsName::default(), stream: String::new() }
    }

    /// Something in this folder.
    #[must_use]
    pub fn child(&self, name: NtfsName, node: Node) -> Self {
        Self { path: self.path_of(&name.to_string()), node, name, stream: String::new() }
    }

    /// The path of something in this folder.
    fn path_of(&self, name: &str) -> String {
        if self.path == "/" { format!("/{name}") } else { format!("{}/{name}", self.path) }
    }
}

/// The files that a path names: `/Windows/notepad.exe`, `\Windows\*.exe`, `C:\Users`, `/file.txt:stream`. Case is ignored;
/// `*`, `?` and `[…]` match within a name, unless a file has exactly that name.
///
/// # Errors
/// [`Kind::Usage`] for a path that cannot be one, or that names nothing; what the volume says.
pub fn select(files: &Files<'_>, path: &str) -> Result<Vec<Found>> {
    let Parsed { names, stream } = parse(path)?;
    let mut found = vec![Found::root(files)];
    let mut link = None;
    for name in names {
        let mut next = Vec::new();
        for folder in &found {
            match folder.node.kind {
                NodeKind::Folder => find_in(files, folder, name, &mut next)?,
                NodeKind::Link => link = Some(folder.clone()),
                NodeKind::File => {}
            }
        }
        found = next;
    }
    match (found.is_empty(), link) {
        (false, _) => {
            found.iter_mut().for_each(|found| found.stream.clone_from(&stream));
            Ok(found)
        }
        (true, Some(link)) => {
            let target = files.details(&link.node)?.target.unwrap_or_default();
            Err(Error::new(
                Kind::Usage,
                Layer::Job,
                format!("{} is a link to {target}, and links are not followed", link.path),
            )
            .path(path)
            .hint("name the path that it leads to"))
        }
        (true, None) => Err(Error::new(Kind::Usage, Layer::Job, "no such file")
            .with_code(ErrorCode::NoSuchFile)
            .path(path)
            .hint("winject ls IMAGE / lists the root folder of the volume; winject inspect IMAGE lists the volumes")),
    }
}

fn find_in(files: &Files<'_>, folder: &Found, name: &str, out: &mut Vec<Found>) -> Result<()> {
    let at_path = |error: Error| error.path(folder.path_of(name));
    if let Some(node) = files.find(&folder.node, name).map_err(at_path)? {
        out.push(folder.child(name.into(), node));
        return Ok(());
    }
    if !name.contains(['*', '?', '[']) {
        return Ok(());
    }
    let pattern = Pattern::new(&name.to_lowercase()).map_err(|error| {
        Error::new(Kind::Usage, Layer::Job, format!("the pattern cannot be read: {}", error.msg))
            .path(name)
            .hint("close the bracket, or write `[[]` for a bracket in a name")
    })?;
    for (name, node) in files.list(&folder.node).map_err(at_path)? {
        if !node.is_metadata && pattern.matches(&name.to_string().to_lowercase()) {
            if out.len() == MATCHES_MAX {
                return Err(Error::unsupported(Layer::Job, "the pattern matches more than 1,048,576 files"));
            }
            out.push(folder.child(name, node));
        }
    }
    Ok(())
}

struct Parsed<'a> {
    names: Vec<&'a str>,
    stream: String,
}

fn parse(path: &str) -> Result<Parsed<'_>> {
    let usage = |what: &str, hint: &str| Error::new(Kind::Usage, Layer::Job, what).path(path).hint(hint);
    let mut names: Vec<&str> = path.split(['/', '\\']).filter(|name| !matches!(*name, "" | ".")).collect();
    if names.len() > DEPTH_MAX {
        return Err(usage("the path has more than 1,024 parts", "name a path that Windows can open"));
    }
    if names.contains(&"..") {
        return Err(usage("the path contains `..`", "name the path from the root of the volume on"));
    }
    if let Some(drive) = names.first().and_then(|first| first.strip_suffix(':'))
        && drive.len() == 1
    {
        if !drive.eq_ignore_ascii_case("c") {
            return Err(usage("an image does not tell drive letters", "choose the volume with --partition"));
        }
        names.remove(0);
    }
    let mut stream = "";
    if let Some(last) = names.last_mut()
        && let Some((name, named)) = last.split_once(':')
    {
        *last = name;
        // Windows writes the type of the attribute after a second colon.
        stream = named.split_once(':').map_or(named, |(stream, _)| stream);
    }
    Ok(Parsed { names, stream: stream.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_people_write_them() {
        for (path, names, stream) in [
            ("/", &[][..], ""),
            ("", &[], ""),
            (r"C:\Windows\System32\", &["Windows", "System32"], ""),
            ("c:/a//./b", &["a", "b"], ""),
            ("/a.txt:Zone.Identifier", &["a.txt"], "Zone.Identifier"),
            ("/a.txt:b:$DATA", &["a.txt"], "b"),
            ("/a.txt::$DATA", &["a.txt"], ""),
        ] {
            let parsed = parse(path).unwrap();
            assert_eq!((parsed.names.as_slice(), parsed.stream.as_str()), (names, stream), "{path}");
        }
        for path in ["/a/../b", r"D:\a"] {
            assert_eq!(parse(path).err().unwrap().kind(), Kind::Usage, "{path}");
        }
    }
}
