//! Child processes with a time limit. A child and all that it starts are in a job object of their own.

use core::ptr::null_mut;

use super::file::{File, NONE};
use super::handle::OwnedHandle;
use super::stop::{Deadline, StopEvent};
use super::wide::to_wide;
use super::{ffi, last_error};

/// `CREATE_SUSPENDED` and `CREATE_NO_WINDOW`
const FLAGS: u32 = 0x4 | 0x0800_0000;
/// `STARTF_USESTDHANDLES`
const USE_HANDLES: u32 = 0x100;
/// `JobObjectExtendedLimitInformation`
const EXTENDED_LIMITS: u32 = 9;
/// `JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`
const KILL_ON_CLOSE: u32 = 0x2000;
/// Exit code of what was ended by force.
const KILLED: u32 = 1;
/// Milliseconds that a killed process gets to be gone.
const GRACE: u32 = 5000;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(i32),
    /// By the time limit.
    Timeout,
    /// Because the program has to stop.
    Stopped,
    /// It could not be started; the number of the error.
    NotStarted(u32),
}

struct Job(OwnedHandle);

impl Job {
    fn new() -> Option<Self> {
        let job = OwnedHandle::new(unsafe { ffi::CreateJobObjectW(null_mut(), NONE) }).map(Self)?;
        job.set_limits(KILL_ON_CLOSE).then_some(job)
    }

    fn set_limits(&self, flags: u32) -> bool {
        let limits = ffi::JobLimits { flags, ..ffi::JobLimits::default() };
        let size = u32::try_from(size_of::<ffi::JobLimits>()).unwrap_or(0);
        unsafe { ffi::SetInformationJobObject(self.0.raw(), EXTENDED_LIMITS, &raw const limits, size) != 0 }
    }

    /// Lets what the child has left running live on: a command may start a program that stays.
    fn let_live(&self) {
        self.set_limits(0);
    }

    fn kill(&self) {
        unsafe { ffi::TerminateJobObject(self.0.raw(), KILLED) };
    }
}

/// Runs a command line with its output into `output`, at most so many seconds.
#[must_use]
pub fn run(line: &str, folder: &str, output: &File, seconds: u32, stop: &StopEvent) -> Ended {
    let Ok(input) = File::null_for_child() else { return Ended::NotStarted(last_error()) };
    let (mut line, folder) = (to_wide(line), to_wide(folder));
    let startup = ffi::StartupInfo {
        size: u32::try_from(size_of::<ffi::StartupInfo>()).unwrap_or(0),
        reserved: null_mut(),
        desktop: null_mut(),
        title: null_mut(),
        places: [0; 7],
        flags: USE_HANDLES,
        show: 0,
        extra_size: 0,
        extra: null_mut(),
        input: input.raw(),
        output: output.raw(),
        error: output.raw(),
    };
    let mut child = ffi::ProcessInformation { process: null_mut(), thread: null_mut(), process_id: 0, thread_id: 0 };
    // CreateProcess writes into the line
    let created = unsafe {
        ffi::CreateProcessW(
            NONE,
            line.as_mut_ptr(),
            null_mut(),
            null_mut(),
            1,
            FLAGS,
            null_mut(),
            folder.as_ptr(),
            &raw const startup,
            &raw mut child,
        )
    };
    if created == 0 {
        return Ended::NotStarted(last_error());
    }
    let (Some(process), Some(thread)) = (OwnedHandle::new(child.process), OwnedHandle::new(child.thread)) else {
        return Ended::NotStarted(last_error());
    };
    // Without a job object the child alone is ended, not what it has started.
    let job = Job::new().filter(|job| unsafe { ffi::AssignProcessToJobObject(job.0.raw(), process.raw()) } != 0);
    unsafe { ffi::ResumeThread(thread.raw()) };
    wait(&process, job.as_ref(), Deadline::after(seconds), stop)
}

fn wait(process: &OwnedHandle, job: Option<&Job>, deadline: Deadline, stop: &StopEvent) -> Ended {
    let handles = [process.raw(), stop.raw()];
    let forced = match unsafe { ffi::WaitForMultipleObjects(2, handles.as_ptr(), 0, deadline.remaining()) } {
        0 => {
            let mut code = 0;
            unsafe { ffi::GetExitCodeProcess(process.raw(), &raw mut code) };
            if let Some(job) = job {
                job.let_live();
            }
            return Ended::Code(code.cast_signed());
        }
        1 => Ended::Stopped,
        _ => Ended::Timeout,
    };
    match job {
        Some(job) => job.kill(),
        None => {
            unsafe { ffi::TerminateProcess(process.raw(), KILLED) };
        }
    }
    unsafe { ffi::WaitForSingleObject(process.raw(), GRACE) };
    forced
}
