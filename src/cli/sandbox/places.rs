//! The files and folders that a command line names, by what its command does with them.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};

use crate::cli::bitlocker_args::KeySource;
use crate::cli::environment;
use crate::cli::look;
use crate::cli::request::InjectSpec;
use crate::host::{JOURNAL_ENDING, Target, UNDO_RECORD_ENDING, folder_of, is_nbd_name, next_to};
use crate::nbd::{Address, NbdUri};
use crate::windows::Upload;

/// What a command does with the file that an argument names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A disk image, a hive or a saved plan: files in its folder are read, too, and written in an edit in place.
    Image,
    /// A file or an export that images may refer to.
    Allowed,
    /// A file or a folder that is only read.
    Input,
    /// A file or a folder that is made.
    Output,
    /// The document of a run.
    Document,
}

/// Arguments whose value names a disk, a hive or a plan.
const IMAGES: &[&str] =
    &["image", "images", "input", "other_disk", "windows_disk", "target", "old", "new", "a", "b", "plan", "show"];

/// Arguments whose value is only read.
const INPUTS: &[&str] =
    &["folders", "drivers", "inject", "sources", "definitions", "trust_publisher", "firstboot", "file"];

/// Commands that write to their image without `--in-place`.
const EDITS: &[&[&str]] = &[&["recover"], &["undo"], &["reg", "import"], &["reg", "set"], &["reg", "delete"]];

/// What a run may open. A folder stands for all that lies in it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places {
    read: BTreeSet<PathBuf>,
    written: BTreeSet<PathBuf>,
    document: Option<PathBuf>,
    /// NBD servers that images, and what they refer to, are read from or written to.
    servers: Vec<Address>,
    /// Folder for the journals of exports that are edited.
    journals: Option<PathBuf>,
    /// Whether images are edited where they are.
    is_edit: bool,
}

impl Places {
    /// What `command` needs, as far as its arguments name it. All arguments that take a path count: one that is not listed
    /// above as an input is taken for an output.
    pub(super) fn of_command(command: &Command, matches: &ArgMatches) -> Self {
        let mut places = Self::default();
        let (mut command, mut matches, mut names) = (command, matches, Vec::new());
        places.add_arguments(command, matches);
        while let Some((name, below)) = matches.subcommand()
            && let Some(next) = command.find_subcommand(name)
        {
            (command, matches) = (next, below);
            names.push(name);
            let is_edit = matches.try_get_one::<bool>("in_place").is_ok_and(|given| given == Some(&true));
            places.is_edit = is_edit || EDITS.contains(&names.as_slice());
            places.add_arguments(command, matches);
        }
        places
    }

    /// What the injection of a document needs.
    pub(super) fn add_spec(&mut self, spec: &InjectSpec) {
        self.is_edit = spec.output.in_place;
        let guest = &spec.guest;
        let images = spec.other_disks.iter().chain(&spec.windows_disk).chain([&spec.image]);
        let inputs = spec.drivers.iter().chain(&guest.definitions.definitions).chain(&guest.trust_publisher);
        let inputs = inputs.chain(guest.extras.inputs()).chain(guest.bitlocker.inputs()).chain(&spec.document);
        let outputs = spec
            .output
            .overlay
            .iter()
            .chain(&spec.output.output)
            .chain(&guest.report)
            .chain(&guest.machine.machine_output);
        images.for_each(|path| self.add(Role::Image, path));
        spec.source.allow_path.iter().for_each(|path| self.add(Role::Allowed, path));
        inputs.for_each(|path| self.add(Role::Input, path));
        outputs.for_each(|path| self.add(Role::Output, path));
    }

    /// The document that the command line names.
    pub(super) fn document(&self) -> Option<&Path> {
        self.document.as_deref()
    }

    /// Adds all files, for reading.
    pub(super) fn add_all_files(&mut self) {
        self.read.insert(PathBuf::from("/"));
    }

    /// The NBD servers that are connected to, at any time: a lost connection is made again.
    pub(super) fn servers(&self) -> &[Address] {
        &self.servers
    }

    /// The folder for the journals of exports that are edited, which need not exist.
    pub(super) fn journals(&self) -> Option<&Path> {
        self.journals.as_deref()
    }

    /// What is read.
    pub(super) fn read(&self) -> impl Iterator<Item = &Path> {
        self.read.iter().map(PathBuf::as_path)
    }

    /// What is read and written.
    pub(super) fn written(&self) -> impl Iterator<Item = &Path> {
        self.written.iter().map(PathBuf::as_path)
    }

    fn add_arguments(&mut self, command: &Command, matches: &ArgMatches) {
        for argument in command.get_arguments() {
            let id = argument.get_id().as_str();
            if let Some(role) = role(argument) {
                let values = matches.try_get_raw(id).ok().flatten();
                values.into_iter().flatten().for_each(|value| self.add(role, Path::new(value)));
            } else if is_of::<OsString>(argument) {
                self.add_look(matches.try_get_many::<OsString>(id).ok().flatten(), command.get_name() == "cp");
            } else if let Ok(Some(uploads)) = matches.try_get_many::<Upload>(id) {
                uploads.for_each(|upload| self.add(Role::Input, &upload.file));
            } else if let Ok(Some(keys)) = matches.try_get_many::<KeySource>(id) {
                keys.filter_map(KeySource::file).for_each(|file| self.add(Role::Input, file));
            }
        }
    }

    /// `IMAGE PATH…` or `IMAGE:PATH…`, and the destination of a copy.
    fn add_look<'a>(&mut self, values: Option<impl Iterator<Item = &'a OsString>>, is_copy: bool) {
        let mut values: Vec<OsString> = values.into_iter().flatten().cloned().collect();
        if is_copy && let Some(destination) = values.pop() {
            self.add(Role::Output, Path::new(&destination));
        }
        if let Some(image) = look::image_of(&values) {
            self.add(Role::Image, &image);
        }
    }

    fn add(&mut self, role: Role, path: &Path) {
        match role {
            Role::Image => self.add_image(path),
            Role::Input => drop(self.read.insert(path.to_owned())),
            Role::Output => self.add_output(path),
            Role::Document => {
                self.read.insert(path.to_owned());
                self.document = Some(path.to_owned());
            }
            Role::Allowed if is_nbd_name(path) => {
                self.add_server(path);
                // An interrupted edit of it is noticed.
                self.read.extend(environment::journal_folder());
            }
            // An image there names files of its own folder.
            Role::Allowed if path.is_dir() => drop(self.read.insert(path.to_owned())),
            Role::Allowed => {
                self.read.extend([path.to_owned(), folder_of(path).to_owned()]);
                self.written.extend(self.is_edit.then(|| path.to_owned()));
            }
        }
    }

    /// The server of an export. A URI that is not understood is reported by the run.
    fn add_server(&mut self, name: &Path) {
        self.servers.extend(NbdUri::parse(name).ok().map(|uri| uri.address));
    }

    /// The image, what it may refer to in its folder, and the journal and the undo record there.
    fn add_image(&mut self, path: &Path) {
        if is_nbd_name(path) {
            self.add_server(path);
            let journals = environment::journal_folder();
            let into = if self.is_edit { &mut self.written } else { &mut self.read };
            into.extend(journals.clone());
            self.journals = journals.filter(|_| self.is_edit);
            return;
        }
        let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folders = [folder_of(path).to_owned(), folder_of(&real).to_owned()];
        let is_device = std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device());
        let into = if self.is_edit { &mut self.written } else { &mut self.read };
        into.insert(path.to_owned());
        if self.is_edit || !is_device {
            into.extend(folders);
        } else {
            // Next to a device lie other devices.
            let endings = ["", JOURNAL_ENDING, UNDO_RECORD_ENDING];
            let names = [path, real.as_path()].map(|path| endings.map(|ending| next_to(path, ending)));
            into.extend(names.into_iter().flatten());
        }
    }

    /// The folder that a new file is made in, also the one that a symbolic link leads to; or the pipe or device that is
    /// written to.
    fn add_output(&mut self, path: &Path) {
        if is_nbd_name(path) {
            self.add_server(path);
            // A copy is locked there, as an edit is.
            self.journals = environment::journal_folder();
            self.written.extend(self.journals.clone());
            return;
        }
        match std::fs::metadata(path) {
            // A folder to write into, a pipe or a device.
            Ok(meta) if !meta.is_file() => drop(self.written.insert(path.to_owned())),
            _ => {
                let target = Target::resolve(path, "the output").map(|target| target.path().to_owned());
                self.written.extend([path].into_iter().chain(target.as_deref().ok()).filter_map(existing_folder));
            }
        }
    }
}

/// The nearest folder above `path` that exists: the others are made in it. Never the root for a folder that does not exist.
fn existing_folder(path: &Path) -> Option<PathBuf> {
    let own = folder_of(path);
    let mut above = own.ancestors().filter(|folder| *folder == own || !folder.has_root() || folder.parent().is_some());
    let found = above.find(|folder| folder.as_os_str().is_empty() || folder.is_dir())?;
    Some(folder_of(&found.join("file")).to_owned())
}

/// What is done with the file that an argument names; `None` for an argument that takes no path.
fn role(argument: &Arg) -> Option<Role> {
    if !is_of::<PathBuf>(argument) {
        return None;
    }
    Some(match argument.get_id().as_str() {
        "config" | "document" => Role::Document,
        "allow_path" => Role::Allowed,
        id if IMAGES.contains(&id) => Role::Image,
        id if INPUTS.contains(&id) => Role::Input,
        _ => Role::Output,
    })
}

fn is_of<T: 'static>(argument: &Arg) -> bool {
    argument.get_value_parser().type_id() == TypeId::of::<T>()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    /// Arguments that are rightly taken for outputs.
    const OUTPUTS: &[&str] =
        &["output", "overlay", "to_output", "report", "review", "output_dir", "machine_output", "junit", "results"];

    #[test]
    fn every_argument_that_takes_a_path_has_a_role() {
        let mut root = Cli::command();
        root.build();
        let mut pending = vec![&root];
        let mut paths = 0;
        while let Some(command) = pending.pop() {
            for argument in command.get_arguments().filter(|argument| is_of::<PathBuf>(argument)) {
                let id = argument.get_id().as_str();
                let is_listed = role(argument) != Some(Role::Output) || OUTPUTS.contains(&id);
                assert!(
                    is_listed,
                    "{} {id}: not listed. Add it to IMAGES or INPUTS, or here to OUTPUTS if the file is written",
                    command.get_bin_name().unwrap_or_default()
                );
                paths += 1;
            }
            pending.extend(command.get_subcommands());
        }
        assert!(paths > 50, "{paths}");
    }

    #[test]
    fn only_a_server_that_the_command_line_names_is_connected_to() {
        let servers = |line: &str| {
            let mut command = Cli::command();
            let arguments = std::iter::once("winject").chain(line.split(' '));
            let matches = command.try_get_matches_from_mut(arguments).unwrap();
            let places = Places::of_command(&command, &matches);
            (places.servers().to_vec(), places.written().count())
        };
        let tcp = |port| Address::Tcp("h".to_owned(), port);
        assert_eq!(servers("inspect nbd://h/e"), (vec![tcp(10809)], 0));
        assert_eq!(servers("ls nbd://h:1/e /x"), (vec![tcp(1)], 0));
        assert_eq!(servers("inspect nbd+unix:///?socket=/s"), (vec![Address::Unix("/s".into())], 0));
        assert_eq!(servers("inspect a.img").0, []);
        assert_eq!(servers("convert a.img nbd://h/e").0, [tcp(10809)]);
        assert_eq!(servers("check a.img --allow-path nbd://h:1/e --allow-path /nbd").0, [tcp(1)]);
        // The folder of the image is written, the journals of the export are read.
        assert_eq!(servers("remove a.img --in-place --allow-path nbd://h/e"), (vec![tcp(10809)], 2));
    }

    /// What a command line in a folder with some files may read and write.
    fn places(folder: &Path, line: &str) -> (Vec<String>, Vec<String>) {
        let arguments = line.split(' ').map(|word| word.replace('@', &folder.display().to_string()));
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(std::iter::once("winject".to_owned()).chain(arguments)).unwrap();
        let places = Places::of_command(&command, &matches);
        let shown = |path: &Path| path.strip_prefix(folder).map_or("?".to_owned(), |path| path.display().to_string());
        (places.read().map(shown).collect(), places.written().map(shown).collect())
    }

    #[test]
    fn a_command_gets_what_it_names_and_an_edit_in_place_the_folder_of_its_image() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        for name in ["in", "out", "drivers", "real"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        for name in ["in/a.img", "real/b.img", "key"] {
            std::fs::write(folder.join(name), b"x").unwrap();
        }
        std::os::unix::fs::symlink("../real/b.img", folder.join("in/b.img")).unwrap();
        for (line, read, written) in [
            ("inspect @/in/a.img", &["in", "in/a.img"][..], &[][..]),
            ("inspect @/in/b.img", &["in", "in/b.img", "real"], &[]),
            ("ls @/in/a.img:/Windows", &["in", "in/a.img"], &[]),
            ("cp @/in/a.img /Windows/win.ini @/out", &["in", "in/a.img"], &["out"]),
            ("cp @/in/a.img /Windows/win.ini @/out/new.ini", &["in", "in/a.img"], &["out"]),
            ("convert @/in/a.img @/out/new.qcow2", &["in", "in/a.img"], &["out"]),
            ("convert @/in/a.img @/none/below/new.qcow2", &["in", "in/a.img"], &[""]),
            ("undo @/in/a.img", &[], &["in", "in/a.img"]),
            ("reg query @/in/a.img HKLM", &["in", "in/a.img"], &[]),
            ("reg delete @/in/a.img x", &[], &["in", "in/a.img"]),
            (
                "inject @/in/a.img --drivers @/drivers --in-place --report @/out/r.md --upload @/key=C:\\x",
                &["drivers", "key"],
                &["in", "in/a.img", "out"],
            ),
            (
                "inspect @/in/a.img --bitlocker-password @/key --allow-path @/real/b.img",
                &["in", "in/a.img", "key", "real", "real/b.img"],
                &[],
            ),
        ] {
            let (found_read, found_written) = places(&folder, line);
            assert_eq!(found_read, read, "{line}");
            assert_eq!(found_written, written, "{line}");
        }
    }
}
