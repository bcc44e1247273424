//! Filling pages that a mapped file does not have yet, by `userfaultfd`.
//!
//! It is made for programs that answer page faults of others. Here nobody has a page fault: the call that answers one finds a
//! page, copies to it and adds it to the file, without holding the file's lock and without clearing the page before.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr::NonNull,
};

// What `linux/userfaultfd.h` defines: requests, and what they take.

/// Only page faults of the program itself are answered, which everyone may do.
const USER_MODE_ONLY: i32 = 1;
/// `struct uffdio_api`: the version, features, and what may be asked.
const API: libc::Ioctl = 0xC018_AA3F_u32 as libc::Ioctl;
const VERSION: u64 = 0xAA;
/// `struct uffdio_register`: a range's start and length, for which faults, and what may be asked of it.
const REGISTER: libc::Ioctl = 0xC020_AA00_u32 as libc::Ioctl;
const MISSING: u64 = 1;
/// `struct uffdio_copy`: to, from, bytes, how, and what came of it.
const COPY: libc::Ioctl = 0xC028_AA03_u32 as libc::Ioctl;

/// Takes it upon this process to fill the missing pages of a mapping of so many bytes, which are whole pages. From here on
/// a page is only found by [`fill`]; other ways are errors.
///
/// # Errors
///
/// Those of the system: containers mostly forbid it, and Linux has it for everyone since 5.11.
pub(super) fn take(start: NonNull<c_void>, bytes: usize) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the descriptor is new.
    let faults = unsafe {
        let raw = libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | USER_MODE_ONLY);
        let raw = i32::try_from(raw).map_err(|_| io::ErrorKind::Unsupported)?;
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(raw)
    };
    // SAFETY: the request takes three words.
    unsafe { request(&faults, API, &mut [VERSION, 0, 0])? };
    let start = start.as_ptr().expose_provenance() as u64;
    // SAFETY: the request takes four words; what it says of the mapping changes no byte.
    unsafe { request(&faults, REGISTER, &mut [start, bytes as u64, MISSING, 0])? };
    Ok(faults)
}

/// Fills missing pages from `to` on, whole ones; says how many bytes it did.
///
/// # Errors
///
/// `AlreadyExists` where the first page is there. Others are the system's: no room, or no such page in the file any more.
///
/// # Safety
///
/// The range belongs to a mapping that was [taken](take), and nobody reads or writes memory there.
pub(super) unsafe fn fill(faults: &OwnedFd, to: NonNull<c_void>, from: &[u8]) -> io::Result<usize> {
    let (to, bytes) = (to.as_ptr().expose_provenance() as u64, from.len() as u64);
    let mut copy = [to, from.as_ptr().expose_provenance() as u64, bytes, 0, 0];
    // SAFETY: the request takes five words, reads memory that is borrowed and writes pages of the mapping, by the caller's
    // promise nobody else's.
    let filled = unsafe { request(faults, COPY, &mut copy) };
    // Part of it may be done where the rest was refused; the rest says why when it is asked for.
    match (usize::try_from(copy[4].cast_signed()), filled) {
        (Ok(filled @ 1..), _) => Ok(filled),
        (_, Err(error)) => Err(error),
        (_, Ok(())) => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// # Safety
///
/// The request takes as many words, and what it does with the memory that they name is sound.
unsafe fn request<const N: usize>(
    faults: &OwnedFd,
    request: libc::Ioctl,
    words: &mut [u64; N],
) -> io::Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { libc::ioctl(faults.as_raw_fd(), request, words.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
