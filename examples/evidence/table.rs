//! The table: what was counted, as Markdown.

use std::fmt::Write as _;
use std::path::Path;

const BEGIN: &str = "<!-- evidence: begin -->\n";
const END: &str = "<!-- evidence: end -->\n";

/// How many states of a row were what.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub old: u64,
    pub new: u64,
    pub mixed: u64,
}

impl Tally {
    pub fn states(self) -> u64 {
        self.old + self.new + self.mixed
    }
}

/// A finished row.
pub struct Line {
    pub target: String,
    pub fault: &'static str,
    /// What was counted, or why nothing was.
    pub result: Result<Tally, String>,
}

/// The table, its sums, and how it was made.
pub fn markdown(lines: &[Line], seed: u64) -> String {
    let mut text = String::from("| target | fault | states | old | new | mixed |\n|---|---|---:|---:|---:|---:|\n");
    let mut sum = Tally::default();
    for Line { target, fault, result } in lines {
        let row = match result {
            Ok(tally) => {
                sum.old += tally.old;
                sum.new += tally.new;
                sum.mixed += tally.mixed;
                format!(
                    "{} | {} | {} | {}",
                    grouped(tally.states()),
                    grouped(tally.old),
                    grouped(tally.new),
                    tally.mixed
                )
            }
            Err(why) => format!("not run: {why} | | | "),
        };
        writeln!(text, "| {target} | {fault} | {row} |").unwrap();
    }
    let [states, old, new] = [sum.states(), sum.old, sum.new].map(grouped);
    writeln!(text, "| **all** | | **{states}** | **{old}** | **{new}** | **{}** |", sum.mixed).unwrap();
    writeln!(text, "\nSeed {seed}, winject {}.", env!("CARGO_PKG_VERSION")).unwrap();
    text
}

/// 12345 as "12,345".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Puts the table between the marks of a Markdown file.
///
/// # Errors
/// When the file cannot be read or written, or lacks the marks.
pub fn put(file: &Path, table: &str) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot change {}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(cannot)?;
    let lacks = || format!("{} lacks the marks of the evidence table", file.display());
    let (before, rest) = text.split_once(BEGIN).ok_or_else(lacks)?;
    let (_, after) = rest.split_once(END).ok_or_else(lacks)?;
    std::fs::write(file, format!("{before}{BEGIN}\n{table}\n{END}{after}")).map_err(cannot)
}
