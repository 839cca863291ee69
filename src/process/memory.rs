//! Process-wide settings of the operating system and the runtime, made before the process holds any secret.

#![expect(unsafe_code, reason = "these calls of the C library have no safe form in the standard library")]

use std::io;
use std::panic::{PanicHookInfo, set_hook};

/// Keeps the process' memory out of core dumps, and unreadable for other processes of the same account.
///
/// # Errors
/// A call failed. Neither call needs a privilege, so a failure is unexpected and is reported instead of ignored.
pub fn keep_memory_private() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live, initialised rlimit that the kernel only reads.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[cfg(target_os = "linux")]
    // SAFETY: PR_SET_DUMPABLE takes one integer and touches no memory of ours.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes panics print their location, but no message that may contain a secret.
pub fn withhold_panics() {
    set_hook(Box::new(|panic| {
        // An error is ignored: nobody reads the output then, and a panic in this hook would end the process without a
        // message.
        let text = format!("keyturn: this is a bug, at {}: {}\n", place(panic), message(panic));
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    }));
}

/// Returns the message of a panic if it is a literal; a formatted message may quote anything, even a secret.
pub fn message<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(message withheld)")
}

/// Returns the location of a panic in the source.
pub fn place(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map(ToString::to_string).unwrap_or_default()
}

/// Limits the allocator to one arena for all threads. glibc creates up to eight arenas per core and never returns the
/// memory that short bursts leave in them: when idle, that is a multiple of what the controller needs.
pub fn keep_memory_small() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt sets a number inside the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_leaves_no_core_and_is_not_dumpable() {
        keep_memory_private().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let numbers: Vec<&str> = core["Max core file size".len()..].split_whitespace().collect();
        assert_eq!(numbers, ["0", "0", "bytes"]);
        // SAFETY: PR_GET_DUMPABLE only returns a number.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 0);
    }
}
