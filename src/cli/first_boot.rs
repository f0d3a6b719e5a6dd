//! Options of the first-boot job.

use crate::error::{Error, Kind, Layer, Result};
use crate::windows::{FirstBootMethod, FirstBootOptions, Reboot};

// The first-boot job: the same for `inject`, `convert --drivers`, `plan` and a document
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::Args)]
pub struct FirstBootArgs {
    /// Choose what runs the first-boot job in the guest [default: service, on a Windows older than Vista script]
    #[arg(long, value_name = "METHOD", value_enum)]
    pub firstboot_method: Option<FirstBootArg>,

    /// Install no first-boot job (as --firstboot-method none); setup.cmd in the guest installs the packages by hand
    #[arg(long, conflicts_with = "firstboot_method")]
    pub no_firstboot: bool,

    /// Let the first-boot job restart the guest at its end, if a step asks for a restart
    #[arg(long)]
    pub firstboot_reboot: bool,

    /// Run the first-boot job again in a guest that has finished it or given it up
    #[arg(long)]
    pub rearm: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum FirstBootArg {
    /// winject's own service program
    Service,
    /// A script for cmd.exe
    Script,
    /// Nothing: the packages only lie ready
    None,
}

impl FirstBootArgs {
    /// The options of the job.
    ///
    /// # Errors
    /// [`Kind::Usage`] when options exclude each other.
    pub fn options(&self) -> Result<FirstBootOptions> {
        let wrong = |message: &str, hint: &str| Error::new(Kind::Usage, Layer::Cli, message).hint(hint);
        let method = match (self.no_firstboot, self.firstboot_method) {
            (true, Some(FirstBootArg::Service | FirstBootArg::Script)) => {
                let message = "cannot both install a first-boot job and install none";
                return Err(wrong(message, "leave out either no_firstboot or firstboot_method"));
            }
            (true, _) | (false, Some(FirstBootArg::None)) => FirstBootMethod::None,
            (false, Some(FirstBootArg::Service)) => FirstBootMethod::Service,
            (false, Some(FirstBootArg::Script)) => FirstBootMethod::Script,
            (false, None) => FirstBootMethod::Auto,
        };
        let given = [("--firstboot-reboot", self.firstboot_reboot), ("--rearm", self.rearm)];
        let needless = given.into_iter().find(|(_, is_given)| *is_given).map(|(option, _)| option);
        if let (FirstBootMethod::None, Some(option)) = (method, needless) {
            let message = format!("{option} has no effect without a first-boot job");
            return Err(wrong(&message, "leave out --no-firstboot and --firstboot-method none, or that option"));
        }
        let reboot = if self.firstboot_reboot { Reboot::IfNeeded } else { Reboot::Never };
        Ok(FirstBootOptions { method, reboot, rearm: self.rearm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        let none = FirstBootArgs { no_firstboot: true, ..FirstBootArgs::default() };
        assert_eq!(none.options().unwrap().method, FirstBootMethod::None);
        let script = FirstBootArgs { firstboot_method: Some(FirstBootArg::Script), ..FirstBootArgs::default() };
        assert_eq!(script.options().unwrap().method, FirstBootMethod::Script);
        for wrong in [
            FirstBootArgs { no_firstboot: true, ..script },
            FirstBootArgs { rearm: true, ..none },
            FirstBootArgs {
                firstboot_reboot: true,
                firstboot_method: Some(FirstBootArg::None),
                ..FirstBootArgs::default()
            },
        ] {
            assert_eq!(wrong.options().unwrap_err().kind(), Kind::Usage, "{wrong:?}");
        }
    }
}
