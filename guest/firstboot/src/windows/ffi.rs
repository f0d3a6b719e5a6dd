//! The functions and structures of Windows that the program uses, as its headers declare them.
//!
//! Imports go by name and library (`raw-dylib`): no import libraries, no Windows SDK. All are there since Windows Vista.
#![allow(missing_docs, clippy::upper_case_acronyms)]

use core::ffi::c_void;

pub type Handle = *mut c_void;

/// Declares functions of one library. On x86 the names are exported without the decoration of `stdcall`.
macro_rules! import {
    ($library:literal { $($function:item)+ }) => {
        #[cfg_attr(target_arch = "x86", link(name = $library, kind = "raw-dylib", import_name_type = "undecorated"))]
        #[cfg_attr(not(target_arch = "x86"), link(name = $library, kind = "raw-dylib"))]
        unsafe extern "system" { $($function)+ }
    };
}

pub type ThreadStart = unsafe extern "system" fn(Handle) -> u32;
pub type ServiceMain = unsafe extern "system" fn(u32, *mut *mut u16);
pub type ServiceControl = unsafe extern "system" fn(u32, u32, Handle, Handle) -> u32;

/// `SERVICE_TABLE_ENTRYW`
#[repr(C)]
pub struct ServiceEntry {
    pub name: *const u16,
    pub main: Option<ServiceMain>,
}

/// `SERVICE_STATUS`
#[repr(C)]
pub struct ServiceStatus {
    pub kind: u32,
    pub state: u32,
    pub accepts: u32,
    pub exit_code: u32,
    pub specific_code: u32,
    pub check_point: u32,
    pub wait_hint: u32,
}

/// `STARTUPINFOW`
#[repr(C)]
pub struct StartupInfo {
    pub size: u32,
    pub reserved: *mut u16,
    pub desktop: *mut u16,
    pub title: *mut u16,
    pub places: [u32; 7],
    pub flags: u32,
    pub show: u16,
    pub extra_size: u16,
    pub extra: *mut u8,
    pub input: Handle,
    pub output: Handle,
    pub error: Handle,
}

/// `PROCESS_INFORMATION`
#[repr(C)]
pub struct ProcessInformation {
    pub process: Handle,
    pub thread: Handle,
    pub process_id: u32,
    pub thread_id: u32,
}

/// `SECURITY_ATTRIBUTES`
#[repr(C)]
pub struct SecurityAttributes {
    pub size: u32,
    pub descriptor: *mut c_void,
    pub inherit: i32,
}

/// `JOBOBJECT_EXTENDED_LIMIT_INFORMATION`
#[repr(C)]
#[derive(Default)]
pub struct JobLimits {
    pub process_time: i64,
    pub job_time: i64,
    pub flags: u32,
    pub working_set_min: usize,
    pub working_set_max: usize,
    pub processes: u32,
    pub affinity: usize,
    pub priority: u32,
    pub scheduling: u32,
    pub io_counters: [u64; 6],
    pub process_memory: usize,
    pub job_memory: usize,
    pub process_peak: usize,
    pub job_peak: usize,
}

/// `BY_HANDLE_FILE_INFORMATION`
#[repr(C)]
#[derive(Default)]
pub struct FileInformation {
    pub attributes: u32,
    pub times: [u32; 6],
    pub volume: u32,
    pub size_high: u32,
    pub size_low: u32,
    pub links: u32,
    pub index: [u32; 2],
}

/// `WIN32_FIND_DATAW`
#[repr(C)]
pub struct FindData {
    pub attributes: u32,
    pub times: [u32; 6],
    pub size: [u32; 2],
    pub reserved: [u32; 2],
    pub name: [u16; 260],
    pub short_name: [u16; 14],
}

/// `SYSTEMTIME`
#[repr(C)]
#[derive(Default)]
pub struct SystemTime {
    pub year: u16,
    pub month: u16,
    pub weekday: u16,
    pub day: u16,
    pub hour: u16,
    pub minute: u16,
    pub second: u16,
    pub milliseconds: u16,
}

/// `OSVERSIONINFOW`
#[repr(C)]
pub struct VersionInfo {
    pub size: u32,
    pub major: u32,
    pub minor: u32,
    pub build: u32,
    pub platform: u32,
    pub service_pack: [u16; 128],
}

/// `COMMTIMEOUTS`
#[repr(C)]
pub struct CommTimeouts {
    pub read_interval: u32,
    pub read_multiplier: u32,
    pub read_constant: u32,
    pub write_multiplier: u32,
    pub write_constant: u32,
}

/// `TOKEN_PRIVILEGES` with one privilege.
#[repr(C)]
pub struct TokenPrivilege {
    pub count: u32,
    pub luid: [u32; 2],
    pub attributes: u32,
}

/// The beginning of `IP_ADAPTER_ADDRESSES_LH`.
#[repr(C)]
pub struct AdapterAddresses {
    pub length: u32,
    pub index: u32,
    pub next: *const AdapterAddresses,
    pub adapter_name: *const u8,
    pub unicast: Handle,
    pub anycast: Handle,
    pub multicast: Handle,
    pub dns_servers: Handle,
    pub dns_suffix: *const u16,
    pub description: *const u16,
    pub friendly_name: *const u16,
    pub physical: [u8; 8],
    pub physical_length: u32,
    pub flags: u32,
    pub mtu: u32,
    pub kind: u32,
    pub operational: u32,
    pub index6: u32,
}

import!("advapi32" {
    pub fn StartServiceCtrlDispatcherW(table: *const ServiceEntry) -> i32;
    pub fn RegisterServiceCtrlHandlerExW(name: *const u16, control: ServiceControl, context: Handle) -> Handle;
    pub fn SetServiceStatus(service: Handle, status: *const ServiceStatus) -> i32;
    pub fn OpenSCManagerW(machine: *const u16, database: *const u16, access: u32) -> Handle;
    pub fn OpenServiceW(manager: Handle, name: *const u16, access: u32) -> Handle;
    pub fn DeleteService(service: Handle) -> i32;
    pub fn CloseServiceHandle(handle: Handle) -> i32;
    pub fn RegOpenKeyExW(key: Handle, path: *const u16, options: u32, access: u32, out: *mut Handle) -> i32;
    pub fn RegCloseKey(key: Handle) -> i32;
    pub fn RegFlushKey(key: Handle) -> i32;
    pub fn RegEnumKeyExW(
        key: Handle, index: u32, name: *mut u16, length: *mut u32, reserved: *mut u32, class: *mut u16,
        class_length: *mut u32, time: *mut u32,
    ) -> i32;
    pub fn RegEnumValueW(
        key: Handle, index: u32, name: *mut u16, length: *mut u32, reserved: *mut u32, kind: *mut u32, data: *mut u8,
        size: *mut u32,
    ) -> i32;
    pub fn RegQueryValueExW(
        key: Handle, name: *const u16, reserved: *mut u32, kind: *mut u32, data: *mut u8, size: *mut u32,
    ) -> i32;
    pub fn RegDeleteValueW(key: Handle, name: *const u16) -> i32;
    pub fn RegDeleteTreeW(key: Handle, path: *const u16) -> i32;
    pub fn RegDeleteKeyExW(key: Handle, path: *const u16, access: u32, reserved: u32) -> i32;
    pub fn OpenProcessToken(process: Handle, access: u32, token: *mut Handle) -> i32;
    pub fn GetTokenInformation(token: Handle, class: u32, data: *mut u8, length: u32, needed: *mut u32) -> i32;
    pub fn GetLengthSid(sid: *const u8) -> u32;
    pub fn LookupPrivilegeValueW(machine: *const u16, name: *const u16, luid: *mut [u32; 2]) -> i32;
    pub fn AdjustTokenPrivileges(
        token: Handle, disable: i32, new: *const TokenPrivilege, length: u32, old: Handle, needed: *mut u32,
    ) -> i32;
    pub fn GetKernelObjectSecurity(object: Handle, what: u32, data: *mut u8, length: u32, needed: *mut u32) -> i32;
    pub fn InitiateSystemShutdownExW(
        machine: *const u16, message: *const u16, seconds: u32, force: i32, reboot: i32, reason: u32,
    ) -> i32;
});

import!("kernel32" {
    pub fn GetLastError() -> u32;
    pub fn ExitProcess(code: u32) -> !;
    pub fn GetProcessHeap() -> Handle;
    pub fn HeapAlloc(heap: Handle, flags: u32, bytes: usize) -> *mut u8;
    pub fn HeapReAlloc(heap: Handle, flags: u32, memory: *mut u8, bytes: usize) -> *mut u8;
    pub fn HeapFree(heap: Handle, flags: u32, memory: *mut u8) -> i32;
    pub fn CloseHandle(handle: Handle) -> i32;
    pub fn CreateThread(
        security: Handle, stack: usize, start: ThreadStart, parameter: Handle, flags: u32, id: *mut u32,
    ) -> Handle;
    pub fn GetExitCodeThread(thread: Handle, code: *mut u32) -> i32;
    pub fn CreateEventW(security: Handle, manual: i32, initial: i32, name: *const u16) -> Handle;
    pub fn SetEvent(event: Handle) -> i32;
    pub fn WaitForSingleObject(handle: Handle, milliseconds: u32) -> u32;
    pub fn WaitForMultipleObjects(count: u32, handles: *const Handle, all: i32, milliseconds: u32) -> u32;
    pub fn GetTickCount64() -> u64;
    pub fn GetLocalTime(time: *mut SystemTime);
    pub fn GetCurrentProcess() -> Handle;
    pub fn GetCommandLineW() -> *const u16;
    pub fn GetStdHandle(which: u32) -> Handle;
    pub fn CreateProcessW(
        application: *const u16, line: *mut u16, process: Handle, thread: Handle, inherit: i32, flags: u32,
        environment: Handle, folder: *const u16, startup: *const StartupInfo, out: *mut ProcessInformation,
    ) -> i32;
    pub fn ResumeThread(thread: Handle) -> u32;
    pub fn TerminateProcess(process: Handle, code: u32) -> i32;
    pub fn GetExitCodeProcess(process: Handle, code: *mut u32) -> i32;
    pub fn CreateJobObjectW(security: Handle, name: *const u16) -> Handle;
    pub fn SetInformationJobObject(job: Handle, class: u32, data: *const JobLimits, length: u32) -> i32;
    pub fn AssignProcessToJobObject(job: Handle, process: Handle) -> i32;
    pub fn TerminateJobObject(job: Handle, code: u32) -> i32;
    pub fn CreateFileW(
        path: *const u16, access: u32, share: u32, security: *const SecurityAttributes, creation: u32, flags: u32,
        template: Handle,
    ) -> Handle;
    pub fn ReadFile(file: Handle, data: *mut u8, length: u32, read: *mut u32, overlapped: Handle) -> i32;
    pub fn WriteFile(file: Handle, data: *const u8, length: u32, written: *mut u32, overlapped: Handle) -> i32;
    pub fn FlushFileBuffers(file: Handle) -> i32;
    pub fn DeleteFileW(path: *const u16) -> i32;
    pub fn MoveFileExW(from: *const u16, to: *const u16, flags: u32) -> i32;
    pub fn GetFileAttributesW(path: *const u16) -> u32;
    pub fn GetFileInformationByHandle(file: Handle, out: *mut FileInformation) -> i32;
    pub fn FindFirstFileW(pattern: *const u16, out: *mut FindData) -> Handle;
    pub fn FindNextFileW(search: Handle, out: *mut FindData) -> i32;
    pub fn FindClose(search: Handle) -> i32;
    pub fn SetCommTimeouts(port: Handle, timeouts: *const CommTimeouts) -> i32;
    pub fn ExpandEnvironmentStringsW(text: *const u16, out: *mut u16, length: u32) -> u32;
    pub fn MultiByteToWideChar(page: u32, flags: u32, text: *const u8, length: i32, out: *mut u16, room: i32) -> i32;
    pub fn CompareStringOrdinal(a: *const u16, a_length: i32, b: *const u16, b_length: i32, ignore_case: i32) -> i32;
    pub fn LoadLibraryExW(name: *const u16, file: Handle, flags: u32) -> Handle;
    pub fn GetProcAddress(library: Handle, name: *const u8) -> *const c_void;
});

import!("ntdll" {
    pub fn RtlGetVersion(out: *mut VersionInfo) -> i32;
});

import!("iphlpapi" {
    pub fn GetAdaptersAddresses(
        family: u32, flags: u32, reserved: Handle, out: *mut AdapterAddresses, size: *mut u32,
    ) -> u32;
});
