//! The real INFs of three virtio-win generations.

use crate::support;
use std::path::{Path, PathBuf};
use winject::drivers::inf::Inf;
use winject::drivers::{Arch, GuestTarget};

/// All INFs of the corpus with their paths below it.
fn infs() -> Option<Vec<(String, PathBuf)>> {
    let root = support::corpus("inf")?;
    let mut out = Vec::new();
    let mut todo = vec![root.clone()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("inf")) {
                out.push((path.strip_prefix(&root).unwrap().display().to_string(), path));
            }
        }
    }
    out.sort();
    assert!(out.len() > 40, "{}", out.len());
    Some(out)
}

fn parse(name: &str, path: &Path) -> Inf {
    Inf::parse(&std::fs::read(path).unwrap(), name).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn every_real_inf_parses_without_unexplained_warnings() {
    let Some(infs) = infs() else { return };
    for (name, path) in infs {
        let inf = parse(&name, &path);
        let mut fitting = 0;
        for arch in Arch::ALL {
            for (build, server) in
                [(2600, false), (7601, false), (9600, true), (10240, false), (26100, false), (26100, true)]
            {
                let guest = GuestTarget::of_build(arch, build, server);
                let facts = inf.facts(&guest).unwrap_or_else(|e| panic!("{e}"));
                assert!(facts.warnings.is_empty(), "{name}: {:?}", facts.warnings);
                assert_eq!(facts.models.is_empty(), inf.misfit(&guest).is_some(), "{name} for {guest}");
                fitting += usize::from(!facts.models.is_empty());
            }
        }
        assert!(fitting > 0, "{name} fits no guest: {:?}", inf.targets());
    }
}
