//! The options for keys of BitLocker volumes. A key itself is never an argument: other users can see those.

use std::convert::Infallible;
use std::io::stdin;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::prompt::{ask, read_line};
use crate::bitlocker::Secret;
use crate::error::{Error, Kind, Layer, Result};
use crate::host::{self, RunFiles};
use crate::partition::{BitLockerKeys, ProtectorId};

/// Largest file with a key, in bytes.
const KEY_BYTES_MAX: u64 = 64 << 10;

// Keys of BitLocker volumes: the same for every command that looks into a volume, and for a document
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct BitLockerArgs {
    /// Open a BitLocker volume with the recovery key (48 digits) in this file; env:NAME takes it from an environment variable,
    /// - from a line of standard input, and ask from the terminal; ID= before it is the key ID that it is for; repeatable
    #[arg(long, value_name = "[ID=]FILE|env:NAME|-|ask")]
    pub bitlocker_recovery_key: Vec<KeySource>,

    /// Open a BitLocker volume with the password in this file, given like the recovery key; repeatable
    #[arg(long, value_name = "[ID=]FILE|env:NAME|-|ask")]
    pub bitlocker_password: Vec<KeySource>,

    /// Open a BitLocker volume with this startup key or recovery key file (.BEK); repeatable
    #[arg(long, value_name = "[ID=]FILE.BEK", value_parser = |text: &str| Ok::<_, Infallible>(KeySource::parse_file(text)))]
    pub bitlocker_startup_key: Vec<KeySource>,

    /// Open a BitLocker volume with its own key (FVEK), as hexadecimal digits or as the binary file of other tools, given like
    /// the recovery key; repeatable
    #[arg(long, value_name = "[ID=]FILE|env:NAME|-|ask")]
    pub bitlocker_volume_key: Vec<KeySource>,
}

/// Where a key comes from, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    id: Option<ProtectorId>,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Variable(String),
    StandardInput,
    Terminal,
}

/// From `[ID=]FILE`, `[ID=]env:NAME`, `[ID=]-` or `[ID=]ask`. Everything is one of these: an error would quote what may be a
/// key.
impl From<&str> for KeySource {
    fn from(text: &str) -> Self {
        let (id, rest) = Self::split(text);
        let place = match (rest, rest.strip_prefix("env:")) {
            (_, Some(name)) => Place::Variable(name.to_owned()),
            ("-", _) => Place::StandardInput,
            ("ask", _) => Place::Terminal,
            (path, _) => Place::File(PathBuf::from(path)),
        };
        Self { id, place }
    }
}

impl KeySource {
    /// Parses `[ID=]FILE`.
    #[must_use]
    pub fn parse_file(text: &str) -> Self {
        let (id, path) = Self::split(text);
        Self { id, place: Place::File(PathBuf::from(path)) }
    }

    fn split(text: &str) -> (Option<ProtectorId>, &str) {
        let parts = text.split_once('=').and_then(|(id, rest)| Some((ProtectorId::parse(id)?, rest)));
        parts.map_or((None, text), |(id, rest)| (Some(id), rest))
    }

    /// The same with a file that is relative to this folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        if let Place::File(path) = &mut self.place {
            *path = folder.join(&path);
        }
        self
    }

    /// The file that is read, if it is one.
    #[must_use]
    pub fn file(&self) -> Option<&PathBuf> {
        match &self.place {
            Place::File(path) => Some(path),
            _ => None,
        }
    }

    /// Reads the key. An error names the option, and not what was given for it.
    fn read(&self, kind: KeyKind) -> Result<Zeroizing<Vec<u8>>> {
        let cannot =
            |why: &str| Error::new(Kind::Usage, Layer::Cli, format!("cannot read the key of {}: {why}", kind.option()));
        const GIVEN: &str =
            "the option takes a file with the key, env:NAME, - (standard input) or ask, never the key itself";
        match &self.place {
            Place::File(path) => host::read(path, KEY_BYTES_MAX).map(Zeroizing::new).map_err(|error| {
                // A path that does not exist may be a key that was given in place of one.
                let why = match error {
                    host::Unreadable::Io(error) => {
                        return Error::io(Layer::Cli, format!("cannot read the key of {}", kind.option()), error)
                            .hint(GIVEN);
                    }
                    host::Unreadable::NotAFile(kind) => format!("{kind}, not a regular file"),
                    host::Unreadable::TooLarge(limit) => format!("larger than {limit} bytes"),
                };
                cannot(&why).hint(GIVEN)
            }),
            Place::Variable(name) => {
                use std::os::unix::ffi::OsStringExt;
                let value = std::env::var_os(name);
                let value = value.ok_or_else(|| cannot("the environment variable is not set").hint(GIVEN))?;
                Ok(Zeroizing::new(value.into_vec()))
            }
            Place::StandardInput => {
                let line = read_line(&mut stdin().lock());
                line.map_err(|error| cannot("no line on standard input").source_error(error).hint(GIVEN))
            }
            Place::Terminal => {
                let id = self.id.as_ref().map(|id| format!(" with the key ID {id}")).unwrap_or_default();
                ask(&format!("BitLocker {}{id}", kind.name()))
            }
        }
    }
}

impl BitLockerArgs {
    /// The files of the host that are read.
    pub fn inputs(&self) -> impl Iterator<Item = &PathBuf> {
        self.all().filter_map(|(_, source)| source.file())
    }

    /// Refuses an output that is one of these files: a lost key is a lost volume.
    ///
    /// # Errors
    /// [`Kind::Usage`] with the option that names the file.
    pub fn refuse_as_output(&self, output: Option<&Path>) -> Result<()> {
        let Some(output) = output else { return Ok(()) };
        let mut files = RunFiles::default();
        self.inputs().for_each(|path| files.add_input("a key file of this run", path));
        files.add_output("the output", output)
    }

    fn all(&self) -> impl Iterator<Item = (KeyKind, &KeySource)> {
        let of = |kind: KeyKind| move |source| (kind, source);
        let recovery = self.bitlocker_recovery_key.iter().map(of(KeyKind::Recovery));
        let passwords = self.bitlocker_password.iter().map(of(KeyKind::Password));
        let startup = self.bitlocker_startup_key.iter().map(of(KeyKind::Startup));
        let volume = self.bitlocker_volume_key.iter().map(of(KeyKind::Volume));
        recovery.chain(passwords).chain(startup).chain(volume)
    }

    /// Reads all keys: files and variables, then the lines of standard input and the answers at the terminal in the order of
    /// the kinds above.
    ///
    /// # Errors
    /// [`Kind::Io`] for a file that cannot be read; [`Kind::Usage`] for what is not a key of its kind.
    pub fn keys(&self) -> Result<BitLockerKeys> {
        let keys = self.all().map(|(kind, source)| {
            let content = source.read(kind)?;
            let secret = kind.parse(&content).map_err(|error| error.path(kind.option()))?;
            Ok((source.id.clone(), secret))
        });
        Ok(BitLockerKeys::new(keys.collect::<Result<Vec<_>>>()?))
    }
}

/// The kinds of keys, each with an option of its own.
#[derive(Debug, Clone, Copy)]
enum KeyKind {
    Recovery,
    Password,
    Startup,
    Volume,
}

impl KeyKind {
    fn option(self) -> &'static str {
        match self {
            Self::Recovery => "--bitlocker-recovery-key",
            Self::Password => "--bitlocker-password",
            Self::Startup => "--bitlocker-startup-key",
            Self::Volume => "--bitlocker-volume-key",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Recovery => "recovery key",
            Self::Password => "password",
            Self::Startup => "startup key",
            Self::Volume => "volume key",
        }
    }

    fn parse(self, content: &[u8]) -> Result<Secret> {
        let text = || {
            let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
            std::str::from_utf8(content).map(|text| text.trim_end_matches(['\r', '\n'])).map_err(|_| {
                Error::new(Kind::Usage, Layer::Cli, "cannot read the key: not text in UTF-8")
                    .hint("save the file as UTF-8, with nothing but the key in it")
            })
        };
        match self {
            Self::Recovery => Secret::recovery_password(text()?.trim()),
            Self::Password => Secret::password(text()?),
            Self::Startup => Secret::startup_key(content),
            Self::Volume => Secret::volume_key(content),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_may_name_the_key_id_that_it_is_for() {
        let parse = |text: &str| KeySource::from(text);
        let id = |text: &str| parse(text).id.map(|id| id.to_string());
        assert_eq!(id("4381f759=k.txt").as_deref(), Some("4381F759"));
        assert_eq!(parse("4381f759=k.txt").place, Place::File("k.txt".into()));
        assert_eq!(parse("a=b.txt").place, Place::File("a=b.txt".into()));
        assert_eq!(parse("env:KEY").place, Place::Variable("KEY".into()));
        assert_eq!(parse("4381F759=-").place, Place::StandardInput);
        assert_eq!(parse("ask").place, Place::Terminal);
        assert_eq!(KeySource::parse_file("ask").place, Place::File("ask".into()));
        assert_eq!(parse("d/k").in_folder(Path::new("/x")).place, Place::File("/x/d/k".into()));
        assert_eq!(parse("ask").in_folder(Path::new("/x")).place, Place::Terminal);
    }

    /// Sooner or later the key itself is typed there: it must not be repeated.
    #[test]
    fn a_key_that_was_typed_in_place_of_a_file_is_not_quoted() {
        let typed = "correct horse battery staple";
        let args = BitLockerArgs { bitlocker_password: vec![KeySource::from(typed)], ..Default::default() };
        let error = args.keys().unwrap_err();
        let shown = format!("{error} {error:?} {}", error.hint_text().unwrap());
        assert!(shown.contains("--bitlocker-password") && !shown.contains("horse"), "{shown}");
    }
}
