//! What keyturn asks of the operating system for its own process, before it holds any secret.

#![expect(unsafe_code, reason = "these calls of the C library have no safe form in the standard library")]

use std::io;

/// Keeps the process' memory out of core dumps and out of reach of other processes of the same account.
/// Neither call can fail for lack of a privilege; one that fails all the same is reported, not ignored.
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

/// Lets the allocator keep one arena for all threads. glibc makes up to eight a core, and what short bursts leave in
/// each is never given back: idle, that is a multiple of what the controller needs.
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
        // SAFETY: PR_GET_DUMPABLE only answers a number.
        assert_eq!(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }, 0);
    }
}
