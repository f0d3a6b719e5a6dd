//! Which source file takes which name from which other one.
//!
//! Names are followed through re-exports to the file that defines them, so that a `mod.rs` that only hands names on is
//! no part of a circle. Code under `#[cfg(test)]` does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Item, UseTree};

/// Re-exports of re-exports that are followed.
const DEPTH_MAX: usize = 16;

/// A source file, or a module inside one.
struct Module {
    /// The module's path from the crate's root, `["block", "stage"]`.
    path: Vec<String>,
    /// Which file it is in, as an index into the list of files.
    file: usize,
    /// Items that are defined here.
    items: BTreeSet<String>,
    /// Names that `use` brings in, with the paths that they stand for.
    uses: BTreeMap<String, Vec<String>>,
    /// Every path that the module's code mentions and that begins with `crate`, `super`, `self` or a name brought in.
    mentions: BTreeSet<Vec<String>>,
}

/// The modules of a source folder, and the imports between its files.
pub struct Tree {
    files: Vec<String>,
    modules: BTreeMap<Vec<String>, Module>,
}

impl Tree {
    /// Reads all sources below `root`, which holds `lib.rs`.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self { files: Vec::new(), modules: BTreeMap::new() };
        let mut todo = vec![root.to_owned()];
        while let Some(folder) = todo.pop() {
            let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                if path.is_dir() {
                    todo.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    tree.add(&relative, &std::fs::read_to_string(&path).unwrap());
                }
            }
        }
        tree
    }

    fn add(&mut self, relative: &str, text: &str) {
        if ["main.rs", "lib.rs", "internals.rs"].contains(&relative) {
            return;
        }
        let mut path: Vec<String> = relative.trim_end_matches(".rs").split('/').map(Into::into).collect();
        path.pop_if(|last| last == "mod");
        self.files.push(relative.to_owned());
        let syntax = syn::parse_file(text).unwrap_or_else(|e| panic!("{relative}: {e}"));
        self.add_module(path, self.files.len() - 1, &syntax.items);
    }

    fn add_module(&mut self, path: Vec<String>, file: usize, items: &[Item]) {
        let mut module =
            Module { path, file, items: BTreeSet::new(), uses: BTreeMap::new(), mentions: BTreeSet::new() };
        for item in items {
            if attributes(item).is_some_and(is_for_tests) {
                continue;
            }
            match item {
                Item::Use(found) => {
                    let mut names = BTreeMap::new();
                    collect(&found.tree, &mut Vec::new(), &mut names);
                    // a re-export hands a name on and takes nothing
                    if matches!(found.vis, syn::Visibility::Inherited) {
                        module.mentions.extend(names.values().cloned());
                    }
                    module.uses.extend(names);
                }
                Item::Mod(inner) => {
                    if let Some((_, items)) = &inner.content {
                        let mut path = module.path.clone();
                        path.push(inner.ident.to_string());
                        self.add_module(path, file, items);
                    }
                }
                other => {
                    module.items.extend(name_of(other));
                    Mentions(&mut module.mentions).visit_item(other);
                }
            }
        }
        self.modules.insert(module.path.clone(), module);
    }

    /// The source file's path below `src`.
    pub fn path(&self, file: usize) -> &str {
        &self.files[file]
    }

    /// The top-level module that a file belongs to.
    pub fn top(&self, file: usize) -> Option<&str> {
        self.files[file].split('/').next().map(|name| name.trim_end_matches(".rs"))
    }

    /// Every import: from which file, to which file, and the name taken.
    pub fn imports(&self) -> BTreeSet<(usize, usize, String)> {
        let mut out = BTreeSet::new();
        for module in self.modules.values() {
            for mention in &module.mentions {
                if let Some((target, name)) = self.resolve(&module.path, mention, 0)
                    && target != module.file
                {
                    out.insert((module.file, target, name));
                }
            }
        }
        out
    }

    /// The file that defines what `mention` names inside the module `at`, and the name.
    fn resolve(&self, at: &[String], mention: &[String], depth: usize) -> Option<(usize, String)> {
        if depth > DEPTH_MAX {
            return None;
        }
        let (mut here, mut rest) = match mention.first()?.as_str() {
            "crate" => (Vec::new(), &mention[1..]),
            "self" => (at.to_vec(), &mention[1..]),
            "super" => (at.to_vec(), mention),
            _ => (at.to_vec(), mention),
        };
        while let Some(("super", after)) = rest.split_first().map(|(first, after)| (first.as_str(), after)) {
            here.pop()?;
            rest = after;
        }
        while let Some((name, after)) = rest.split_first() {
            let mut child = here.clone();
            child.push(name.clone());
            if self.modules.contains_key(&child) {
                here = child;
                rest = after;
                continue;
            }
            let module = self.modules.get(&here)?;
            if module.items.contains(name) || name == "*" {
                return Some((module.file, name.clone()));
            }
            let target = module.uses.get(name)?;
            if target == mention && here == at {
                return None;
            }
            let mut whole = target.clone();
            whole.extend_from_slice(after);
            return self.resolve(&here, &whole, depth + 1);
        }
        None
    }

    /// Groups of files that import each other in a loop.
    pub fn circles(&self) -> Vec<Vec<usize>> {
        let mut next: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, to, _) in self.imports() {
            next.entry(from).or_default().insert(to);
        }
        let reach: Vec<BTreeSet<usize>> = (0..self.files.len()).map(|file| reachable(&next, file)).collect();
        let mut done: BTreeSet<usize> = BTreeSet::new();
        let mut out = Vec::new();
        for file in 0..self.files.len() {
            if !done.contains(&file) && reach[file].contains(&file) {
                let circle: Vec<usize> =
                    reach[file].iter().copied().filter(|other| reach[*other].contains(&file)).collect();
                done.extend(&circle);
                out.push(circle);
            }
        }
        out
    }

    /// A circle in words: who takes what from whom.
    pub fn describe(&self, circle: &[usize]) -> String {
        let mut taken: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
        for (from, to, name) in self.imports() {
            if circle.contains(&from) && circle.contains(&to) {
                taken.entry((from, to)).or_default().push(name);
            }
        }
        let line = |((from, to), names): (&(usize, usize), &Vec<String>)| {
            format!("{} takes {} from {}", self.path(*from), names.join(", "), self.path(*to))
        };
        taken.iter().map(line).collect::<Vec<_>>().join("; ")
    }
}

/// What can be reached from `start` in one step or more.
fn reachable(next: &BTreeMap<usize, BTreeSet<usize>>, start: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut todo = vec![start];
    while let Some(file) = todo.pop() {
        for &to in next.get(&file).into_iter().flatten() {
            if seen.insert(to) {
                todo.push(to);
            }
        }
    }
    seen
}

/// The paths of a `use`, by the names that they get.
fn collect(tree: &UseTree, prefix: &mut Vec<String>, out: &mut BTreeMap<String, Vec<String>>) {
    let mut add = |prefix: &[String], name: String, known_as: String| {
        let mut path = prefix.to_vec();
        if name != "self" {
            path.push(name);
        }
        let known_as = if known_as == "self" { path.last().cloned().unwrap_or_default() } else { known_as };
        out.insert(known_as, path);
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            collect(&path.tree, prefix, out);
            prefix.pop();
        }
        UseTree::Name(name) => add(prefix, name.ident.to_string(), name.ident.to_string()),
        UseTree::Rename(name) => add(prefix, name.ident.to_string(), name.rename.to_string()),
        UseTree::Glob(_) => add(prefix, "*".into(), format!("* of {}", prefix.join("::"))),
        UseTree::Group(group) => {
            for tree in &group.items {
                collect(tree, prefix, out);
            }
        }
    }
}

/// Collects all paths of two segments and more.
struct Mentions<'a>(&'a mut BTreeSet<Vec<String>>);

impl<'ast> Visit<'ast> for Mentions<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if segments.len() > 1 {
            self.0.insert(segments);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        // the arguments of most macros are expressions
        type Arguments = syn::punctuated::Punctuated<syn::Expr, syn::Token![,]>;
        if let Ok(arguments) = found.parse_body_with(Arguments::parse_terminated) {
            for argument in &arguments {
                self.visit_expr(argument);
            }
        }
        syn::visit::visit_macro(self, found);
    }

    fn visit_item_mod(&mut self, _: &'ast syn::ItemMod) {}
}

fn attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => return None,
    })
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Meta>().is_ok_and(|meta| meta.path().is_ident("test")))
}

fn name_of(item: &Item) -> Option<String> {
    Some(match item {
        Item::Const(i) => i.ident.to_string(),
        Item::Enum(i) => i.ident.to_string(),
        Item::Fn(i) => i.sig.ident.to_string(),
        Item::Macro(i) => i.ident.as_ref()?.to_string(),
        Item::Static(i) => i.ident.to_string(),
        Item::Struct(i) => i.ident.to_string(),
        Item::Trait(i) => i.ident.to_string(),
        Item::Type(i) => i.ident.to_string(),
        Item::Union(i) => i.ident.to_string(),
        _ => return None,
    })
}

fn tree_of(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree { files: Vec::new(), modules: BTreeMap::new() };
    for (path, text) in files {
        tree.add(path, text);
    }
    tree
}

/// The reader sees what it has to see: a circle through a re-export, through a path in an expression, through a macro.
fn circles_are_seen() {
    let face = ("a/mod.rs", "mod x; mod y; pub use y::Y; pub(crate) use x::X;");
    let x = ("a/x.rs", "use super::Y; pub struct X(Y);");
    for y in [
        "use super::X; pub struct Y(X);",
        "pub struct Y; fn f() { super::x::X::new(); }",
        "pub struct Y; fn f() { println!(\"{}\", crate::a::X::new()); }",
    ] {
        let tree = tree_of(&[face, x, ("a/y.rs", y)]);
        assert_eq!(tree.circles(), [[1, 2]], "{y}");
    }
    for y in ["pub struct Y;", "pub struct Y; #[cfg(test)] mod tests { use super::super::X; }"] {
        let tree = tree_of(&[face, x, ("a/y.rs", y)]);
        assert!(tree.circles().is_empty(), "{y}");
        assert_eq!(tree.imports().len(), 1);
    }
    // a face that defines what its children take is a part of the circle
    let tree = tree_of(&[
        ("a/mod.rs", "mod x; pub use x::X; pub const N: u8 = x::M;"),
        ("a/x.rs", "pub const M: u8 = super::N; pub struct X;"),
    ]);
    assert_eq!(tree.circles().len(), 1);
}

tests![circles_are_seen];
