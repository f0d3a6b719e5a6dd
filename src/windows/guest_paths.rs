//! Where things are in the guest. These names are a contract: tools and people look for them.

/// The folder of all that follows. Only SYSTEM and administrators may write to it.
pub const TOP: &str = "/hyper2kvm";
/// Below it, the staged packages, one folder for each.
pub const STAGE: &str = "/hyper2kvm/drivers/virtio";
/// The same as a batch file or `DevicePath` spells it.
pub const STAGE_IN_SCRIPT: &str = "%SystemDrive%\\hyper2kvm\\drivers\\virtio";
/// Batch file that installs the staged packages when a person runs it.
pub const SETUP: &str = "/hyper2kvm/setup.cmd";
/// The job of the first boot as a script.
pub const FIRSTBOOT: &str = "/hyper2kvm/firstboot.cmd";
/// The service program that runs the job.
pub const PROGRAM: &str = "/hyper2kvm/hyper2kvm-firstboot.exe";
/// The job of the first boot as the service program reads it.
pub const JOB: &str = "/hyper2kvm/firstboot.job";
/// What runs the job, in all forms.
pub const JOB_PROGRAMS: [&str; 3] = [FIRSTBOOT, PROGRAM, JOB];
/// The marker that the job leaves when it is done.
pub const DONE: &str = "/hyper2kvm/firstboot.done";
/// The marker that the job leaves when it gave up.
pub const FAILED: &str = "/hyper2kvm/firstboot.failed";
/// The job's counter of attempts that ended with a failed required step.
pub const ATTEMPTS: &str = "/hyper2kvm/firstboot.attempts";
/// The job's counter of attempts that began.
pub const BEGUN: &str = "/hyper2kvm/firstboot.begun";
/// The job's result for programs.
pub const RESULT: &str = "/hyper2kvm/firstboot.json";
/// What the job leaves in the folder: its markers, its counter, its working files and the outcome for programs.
pub const JOB_FILES: [&str; 13] = [
    DONE,
    FAILED,
    ATTEMPTS,
    BEGUN,
    "/hyper2kvm/firstboot.lock",
    "/hyper2kvm/firstboot.new",
    "/hyper2kvm/firstboot.progress",
    "/hyper2kvm/firstboot.steps",
    "/hyper2kvm/firstboot.tried",
    "/hyper2kvm/firstboot.rc",
    "/hyper2kvm/firstboot.out",
    "/hyper2kvm/firstboot.tmp",
    RESULT,
];
/// Scripts of the user that the first-boot job runs, each with its log.
pub const FIRSTBOOT_SCRIPTS: &str = "/hyper2kvm/firstboot.d";
/// The installer of the QEMU guest agent, with its log.
pub const GUEST_AGENT: &str = "/hyper2kvm/guest-agent";
/// The list of what a run put into the guest.
pub const MANIFEST: &str = "/hyper2kvm/manifest.json";
/// The service that starts the job.
pub const SERVICE: &str = "hyper2kvm-firstboot";
/// The job's log, below the Windows folder.
pub const LOG_BELOW_WINDOWS: &str = "Temp\\hyper2kvm-firstboot.log";
