//! Sets a value in a registry hive file: `cargo run --example edit_hive HIVE NEW KEY NAME NUMBER`.
//!
//! The changed hive goes into a new file. A hive whose logs hold changes has to be opened with them
//! (`Hive::open_with_logs`); `Hive::open` refuses it.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use winject::{FileTime, Hive, RegistryData};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [hive, new, key, name, number] = arguments.as_slice() else {
        return Err("usage: edit_hive HIVE NEW KEY NAME NUMBER".into());
    };
    let now = FileTime::now();
    let mut edited = Hive::open(std::fs::read(hive)?)?;
    let key = edited.create_key(edited.root(), key, now)?;
    let data = RegistryData::dword(number.parse()?);
    let is_changed = edited.set_value(key, name, &data, now)?;
    std::fs::write(new, edited.finish(&[])?)?;
    println!("{}", if is_changed { "set" } else { "was set already" });
    Ok(())
}
