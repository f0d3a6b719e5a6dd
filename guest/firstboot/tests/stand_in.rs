//! A stand-in for `pnputil.exe`, `netsh.exe`, `msiexec.exe` and others in the tests under Wine: it notes how it was
//! called and ends as it is told.
//!
//! `C:\stub\calls.txt` gets the command line, in UTF-8. `C:\stub\behave.txt` has lines of a piece of the command line, a
//! tab, and what to do: an exit code; `hang`; `child` (start a copy of itself that hangs, and hang); `once CODE` (fail
//! with the code the first time). `C:\stub\says.bin` is printed as it is.
#![cfg_attr(windows, no_std, no_main)]

#[cfg(windows)]
extern crate alloc;

#[cfg(windows)]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "system" fn start() -> ! {
    winject_firstboot::windows::system::exit(stand_in::run())
}

#[cfg(windows)]
mod stand_in {
    use alloc::string::String;
    use winject_firstboot::text::join;
    use winject_firstboot::windows::{console, file, stop::StopEvent};

    const FOREVER: u32 = 3_600_000;

    /// Returns the exit code.
    pub fn run() -> u32 {
        let line = console::command_line();
        let calls = file::read("C:\\stub\\calls.txt", 1 << 20).unwrap_or_default();
        let earlier = String::from_utf8_lossy(&calls).lines().filter(|call| *call == line).count();
        let _ = console::append("C:\\stub\\calls.txt", join(&[&line, "\r\n"]).as_bytes());
        console::print(&file::read("C:\\stub\\says.bin", 1 << 20).unwrap_or_default());
        let behave = file::read("C:\\stub\\behave.txt", 1 << 20).unwrap_or_default();
        for rule in String::from_utf8_lossy(&behave).lines() {
            let Some((piece, action)) = rule.split_once('\t') else { continue };
            if line.contains(piece) {
                return act(action, &line, earlier);
            }
        }
        0
    }

    fn act(action: &str, line: &str, earlier: usize) -> u32 {
        let code = |text: &str| text.parse::<i32>().unwrap_or(99).cast_unsigned();
        match action.split_once(' ').unwrap_or((action, "")) {
            ("once", number) => {
                if earlier == 0 {
                    code(number)
                } else {
                    0
                }
            }
            ("child", _) => {
                if !line.ends_with("grandchild") {
                    console::start(&join(&[line, " grandchild"]));
                }
                hang()
            }
            ("hang", _) => hang(),
            (number, _) => code(number),
        }
    }

    fn hang() -> u32 {
        if let Some(never) = StopEvent::new() {
            let _ = never.wait(FOREVER);
        }
        98
    }
}

#[cfg(not(windows))]
fn main() {}
