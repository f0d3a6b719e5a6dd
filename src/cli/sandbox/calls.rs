//! System calls: seccomp.
//!
//! A call that is not listed fails with `ENOSYS`, as in a kernel that does not have it: the libraries then take the older
//! call that they have for this case, and a call that was forgotten here is an error of the run like any other, which
//! leaves the image as it was; the process is never killed between two writes.

use std::collections::BTreeMap;

use nix::libc::{self as c, c_long};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// Calls that are allowed whatever their arguments are.
const CALLS: &[c_long] = &[
    // Content of files
    c::SYS_read,
    c::SYS_readv,
    c::SYS_pread64,
    c::SYS_preadv,
    c::SYS_preadv2,
    c::SYS_write,
    c::SYS_writev,
    c::SYS_pwrite64,
    c::SYS_pwritev,
    c::SYS_pwritev2,
    c::SYS_lseek,
    c::SYS_copy_file_range,
    c::SYS_sendfile,
    c::SYS_fadvise64,
    c::SYS_ftruncate,
    c::SYS_fallocate,
    c::SYS_fsync,
    c::SYS_fdatasync,
    c::SYS_sync,
    c::SYS_syncfs,
    c::SYS_sync_file_range,
    // Open files
    c::SYS_close,
    c::SYS_dup,
    c::SYS_dup3,
    c::SYS_fcntl,
    c::SYS_flock,
    c::SYS_pipe2,
    c::SYS_ppoll,
    // Names and attributes of files, which Landlock restricts
    c::SYS_openat,
    c::SYS_fstat,
    c::SYS_newfstatat,
    c::SYS_statx,
    c::SYS_statfs,
    c::SYS_fstatfs,
    c::SYS_faccessat,
    c::SYS_faccessat2,
    c::SYS_readlinkat,
    c::SYS_getdents64,
    c::SYS_getcwd,
    c::SYS_mkdirat,
    c::SYS_unlinkat,
    c::SYS_renameat,
    c::SYS_renameat2,
    c::SYS_linkat,
    c::SYS_fchmod,
    c::SYS_fchmodat,
    c::SYS_fchown,
    c::SYS_umask,
    c::SYS_utimensat,
    // Memory and threads
    c::SYS_brk,
    c::SYS_munmap,
    c::SYS_mremap,
    c::SYS_madvise,
    c::SYS_futex,
    c::SYS_set_robust_list,
    c::SYS_set_tid_address,
    c::SYS_rseq,
    c::SYS_sched_yield,
    c::SYS_sched_getaffinity,
    c::SYS_membarrier,
    c::SYS_exit,
    c::SYS_exit_group,
    // The process itself
    c::SYS_getpid,
    c::SYS_gettid,
    c::SYS_getuid,
    c::SYS_geteuid,
    c::SYS_getgid,
    c::SYS_getegid,
    c::SYS_getgroups,
    c::SYS_getrusage,
    c::SYS_sysinfo,
    c::SYS_uname,
    c::SYS_getrandom,
    // Time
    c::SYS_clock_gettime,
    c::SYS_clock_getres,
    c::SYS_clock_nanosleep,
    c::SYS_nanosleep,
    c::SYS_gettimeofday,
    // Signals, and the pair of sockets through which their handler wakes its thread
    c::SYS_rt_sigaction,
    c::SYS_rt_sigprocmask,
    c::SYS_rt_sigreturn,
    c::SYS_sigaltstack,
    c::SYS_restart_syscall,
    c::SYS_tkill,
    c::SYS_sendto,
    c::SYS_recvfrom,
];

/// Calls for connections to a server, where an image is an NBD export.
const CONNECTION_CALLS: &[c_long] =
    &[c::SYS_connect, c::SYS_shutdown, c::SYS_setsockopt, c::SYS_getsockopt, c::SYS_getsockname, c::SYS_getpeername];

/// Older names of calls above, which only x86 has.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    c::SYS_open,
    c::SYS_stat,
    c::SYS_lstat,
    c::SYS_access,
    c::SYS_readlink,
    c::SYS_mkdir,
    c::SYS_rmdir,
    c::SYS_unlink,
    c::SYS_rename,
    c::SYS_link,
    c::SYS_chmod,
    c::SYS_poll,
    c::SYS_dup2,
    c::SYS_pipe,
    c::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Requests to devices, by their numbers on all processors that are supported here. Not among them: to type into a terminal
/// (`TIOCSTI`).
const REQUESTS: &[u64] = &[
    // Settings of a terminal: TCGETS, TCSETS, TCSETSW, TCSETSF, and the same of termios2
    0x5401,
    0x5402,
    0x5403,
    0x5404,
    0x802c_542a,
    0x402c_542b,
    0x402c_542c,
    0x402c_542d,
    // Its foreground process group and size: TIOCGPGRP, TIOCGWINSZ
    0x540f,
    0x5413,
    // Flags of an open file: FIONBIO, FIOCLEX
    0x5421,
    0x5451,
    // Size and blocks of a disk: BLKGETSIZE64, BLKSSZGET, BLKPBSZGET
    0x8008_1272,
    0x1268,
    0x127b,
    // FICLONE
    0x4004_9409,
];

/// Restricts this thread and those that it starts, for good. `connects`: an NBD server is connected to.
///
/// # Errors
/// When the kernel cannot do it, or the processor is not known here.
pub(super) fn restrict(connects: bool) -> Result<(), Error> {
    let program: BpfProgram = filter(connects)?.try_into()?;
    seccompiler::apply_filter(&program)
}

fn filter(connects: bool) -> Result<SeccompFilter, Error> {
    let target: TargetArch = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(CALLS.iter().chain(OLDER).map(|call| (*call, Vec::new())));
    let process = u64::from(std::process::id());
    let requests = REQUESTS.iter().map(|request| equals(1, *request)).collect::<Result<_, _>>()?;
    let some = [
        (c::SYS_ioctl, requests),
        // No memory can be executed that the program did not begin with.
        (c::SYS_mmap, vec![has_none(2, c::PROT_EXEC)?]),
        (c::SYS_mprotect, vec![has_none(2, c::PROT_EXEC)?]),
        // Threads, and no processes. `clone3`, whose flags cannot be seen here, is not listed: the C libraries then use `clone`.
        (c::SYS_clone, vec![has_all(0, c::CLONE_THREAD)?]),
        (c::SYS_prctl, vec![equals(0, c::PR_SET_NAME as u64)?]),
        // The limits of this process.
        (c::SYS_prlimit64, vec![equals(0, 0)?, equals(0, process)?]),
        (c::SYS_kill, vec![equals(0, process)?]),
        (c::SYS_tgkill, vec![equals(0, process)?]),
        (c::SYS_socketpair, vec![equals(0, c::AF_UNIX as u64)?]),
    ];
    rules.extend(some);
    if connects {
        let families = [c::AF_UNIX, c::AF_INET, c::AF_INET6].map(|family| equals(0, family as u64));
        rules.insert(c::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
        rules.extend(CONNECTION_CALLS.iter().map(|call| (*call, Vec::new())));
    }
    let refuse = SeccompAction::Errno(c::ENOSYS as u32);
    Ok(SeccompFilter::new(rules, refuse, SeccompAction::Allow, target)?)
}

fn equals(argument: u8, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn has_none(argument: u8, flag: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(flag as u64), 0)
}

fn has_all(argument: u8, flag: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    condition(argument, SeccompCmpOp::MaskedEq(flag as u64), flag as u64)
}

/// The kernel takes the low half of all these arguments.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_accepted_for_this_processor() {
        let program: BpfProgram = filter(true).unwrap().try_into().unwrap();
        assert!(program.len() > CALLS.len());
    }
}
