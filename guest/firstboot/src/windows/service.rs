//! The talk with the service manager.

use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use super::stop::StopEvent;
use super::wide::to_wide;
use super::{ffi, last_error};

/// `SERVICE_WIN32_OWN_PROCESS`
const OWN_PROCESS: u32 = 0x10;
const STOPPED: u32 = 1;
const START_PENDING: u32 = 2;
const STOP_PENDING: u32 = 3;
const RUNNING: u32 = 4;
/// `SERVICE_ACCEPT_STOP` and `SERVICE_ACCEPT_SHUTDOWN`
const ACCEPTS: u32 = 1 | 4;
const CONTROL_STOP: u32 = 1;
const CONTROL_INTERROGATE: u32 = 4;
const CONTROL_SHUTDOWN: u32 = 5;
/// `ERROR_CALL_NOT_IMPLEMENTED`
const NOT_IMPLEMENTED: u32 = 120;
/// `ERROR_SERVICE_SPECIFIC_ERROR`
const SPECIFIC_ERROR: u32 = 1066;
/// `ERROR_FAILED_SERVICE_CONTROLLER_CONNECT`: the service manager has not started the process.
const NOT_A_SERVICE: u32 = 1063;
/// Milliseconds within which the next report comes.
const WAIT_HINT: u32 = 20_000;

/// The program's name and work, as [`run`] was given them. The service manager calls back without a context.
static SERVICE: AtomicPtr<Service> = AtomicPtr::new(null_mut());

struct Service {
    name: &'static str,
    work: fn(&StopEvent) -> u32,
    stop: StopEvent,
    status: AtomicPtr<core::ffi::c_void>,
}

/// Runs `work` as the service `name`, or at once when a person has started the program. Its result is 0 for success or a
/// code of its own. Returns the exit code of the process.
pub fn run(name: &'static str, work: fn(&StopEvent) -> u32) -> u32 {
    let Some(stop) = StopEvent::new() else { return last_error() };
    let mut service = Service { name, work, stop, status: AtomicPtr::new(null_mut()) };
    SERVICE.store(&raw mut service, Ordering::SeqCst);
    let wide = to_wide(name);
    let table = [
        ffi::ServiceEntry { name: wide.as_ptr(), main: Some(service_main) },
        ffi::ServiceEntry { name: null(), main: None },
    ];
    // Returns when the service has stopped: `service` and `wide` outlive both callbacks.
    if unsafe { ffi::StartServiceCtrlDispatcherW(table.as_ptr()) } != 0 {
        return 0;
    }
    match last_error() {
        NOT_A_SERVICE => work(&service.stop),
        error => error,
    }
}

fn service() -> Option<&'static Service> {
    unsafe { SERVICE.load(Ordering::SeqCst).as_ref() }
}

fn report(service: &Service, state: u32, code: u32) {
    let pending = state == START_PENDING || state == STOP_PENDING;
    let status = ffi::ServiceStatus {
        kind: OWN_PROCESS,
        state,
        accepts: if state == RUNNING { ACCEPTS } else { 0 },
        exit_code: if code == 0 { 0 } else { SPECIFIC_ERROR },
        specific_code: code,
        check_point: u32::from(pending),
        wait_hint: if pending { WAIT_HINT } else { 0 },
    };
    unsafe { ffi::SetServiceStatus(service.status.load(Ordering::SeqCst), &raw const status) };
}

unsafe extern "system" fn service_main(_: u32, _: *mut *mut u16) {
    let Some(service) = service() else { return };
    let name = to_wide(service.name);
    let status = unsafe { ffi::RegisterServiceCtrlHandlerExW(name.as_ptr(), control, null_mut()) };
    service.status.store(status, Ordering::SeqCst);
    report(service, START_PENDING, 0);
    report(service, RUNNING, 0);
    let code = (service.work)(&service.stop);
    report(service, STOPPED, code);
}

unsafe extern "system" fn control(code: u32, _: u32, _: ffi::Handle, _: ffi::Handle) -> u32 {
    match code {
        CONTROL_STOP | CONTROL_SHUTDOWN => {
            if let Some(service) = service() {
                report(service, STOP_PENDING, 0);
                unsafe { ffi::SetEvent(service.stop.raw()) };
            }
            0
        }
        CONTROL_INTERROGATE => 0,
        _ => NOT_IMPLEMENTED,
    }
}

/// Removes a service from the service manager's list: at once, or when its process has ended.
///
/// # Errors
/// With the number of the error; a service that is not there is not an error.
pub fn delete(name: &str) -> Result<(), u32> {
    /// `SC_MANAGER_CONNECT`
    const CONNECT: u32 = 1;
    /// `DELETE`
    const DELETE: u32 = 0x1_0000;
    /// `ERROR_SERVICE_DOES_NOT_EXIST` and `ERROR_SERVICE_MARKED_FOR_DELETE`
    const GONE: [u32; 2] = [1060, 1072];
    let name = to_wide(name);
    let manager = unsafe { ffi::OpenSCManagerW(null(), null(), CONNECT) };
    if manager.is_null() {
        return Err(last_error());
    }
    let service = unsafe { ffi::OpenServiceW(manager, name.as_ptr(), DELETE) };
    let deleted = !service.is_null() && unsafe { ffi::DeleteService(service) } != 0;
    let error = if deleted { 0 } else { last_error() };
    for handle in [service, manager] {
        if !handle.is_null() {
            unsafe { ffi::CloseServiceHandle(handle) };
        }
    }
    if deleted || GONE.contains(&error) { Ok(()) } else { Err(error) }
}
