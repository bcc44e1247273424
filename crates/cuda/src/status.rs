//! What the CUDA driver answers, and what kind of error that is for the floors above.

use pinlane_driver::ErrorKind;

/// A `CUresult`: zero, or the number of an error.
///
/// A plain integer, not an enum: a newer driver may answer what no header of ours has named.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) i32);

impl Status {
    pub(crate) const SUCCESS: Self = Self(0);
    pub(crate) const OUT_OF_MEMORY: Self = Self(2);
    pub(crate) const INVALID_CONTEXT: Self = Self(201);
    pub(crate) const OPERATING_SYSTEM: Self = Self(304);
    pub(crate) const INVALID_HANDLE: Self = Self(400);
    pub(crate) const NOT_READY: Self = Self(600);
    pub(crate) const PEER_ACCESS_ALREADY_ENABLED: Self = Self(704);
    pub(crate) const NOT_PERMITTED: Self = Self(800);
    pub(crate) const UNKNOWN: Self = Self(999);

    /// The kind of error that a call with this answer ends in.
    ///
    /// Lost means *sticky*: CUDA answers every later call of the process with the same error, and what the device still
    /// reads and writes can't be known.
    pub(crate) fn kind(self) -> ErrorKind {
        match self.0 {
            // INVALID_VALUE; HOST_MEMORY_ALREADY_REGISTERED, HOST_MEMORY_NOT_REGISTERED
            1 | 712 | 713 => ErrorKind::InvalidArgument,
            2 => ErrorKind::OutOfMemory,
            // STUB_LIBRARY; NO_DEVICE, INVALID_DEVICE
            34 | 100 | 101 => ErrorKind::NoSuchDevice,
            // DEINITIALIZED, CONTEXT_IS_DESTROYED
            4 | 709 => ErrorKind::DeviceLost,
            // ECC_UNCORRECTABLE, NVLINK_UNCORRECTABLE, CONTAINED
            214 | 220 | 226 => ErrorKind::DeviceLost,
            // ILLEGAL_ADDRESS, LAUNCH_TIMEOUT, ASSERT
            700 | 702 | 710 => ErrorKind::DeviceLost,
            // HARDWARE_STACK_ERROR to LAUNCH_FAILED; TENSOR_MEMORY_LEAK
            714..=719 | 721 => ErrorKind::DeviceLost,
            // MPS_RPC_FAILURE, MPS_CLIENT_TERMINATED; EXTERNAL_DEVICE; UNKNOWN
            806 | 810 | 911 | 999 => ErrorKind::DeviceLost,
            // INVALID_CONTEXT, INVALID_HANDLE
            201 | 400 => ErrorKind::InvalidHandle,
            600 => ErrorKind::NotReady,
            // CALL_REQUIRES_NEWER_DRIVER; what a kernel's image can lack; PEER_ACCESS_UNSUPPORTED
            36 | 200 | 209 | 217 | 218 | 221..=225 | 300 => ErrorKind::Unsupported,
            // NOT_FOUND, NOT_SUPPORTED, SYSTEM_DRIVER_MISMATCH, COMPAT_NOT_SUPPORTED_ON_DEVICE
            500 | 801 | 803 | 804 => ErrorKind::Unsupported,
            _ => ErrorKind::Refused,
        }
    }

    /// The kind where the call was to pin host memory: what elsewhere is a lack of device memory, or a refusal of the
    /// operating system, is there the limit of what may be pinned. An unknown error is no more
    /// than a refusal of these pages: a device that is lost says so again at the next call.
    pub(crate) fn kind_of_pinning(self) -> ErrorKind {
        match self {
            Self::OUT_OF_MEMORY | Self::OPERATING_SYSTEM | Self::NOT_PERMITTED => ErrorKind::PinLimit,
            Self::UNKNOWN => ErrorKind::Refused,
            _ => self.kind(),
        }
    }

    /// What to do about it, where that is known.
    pub(crate) fn advice(self) -> Option<&'static str> {
        Some(match self.0 {
            2 => "free device memory, in this process or another",
            4 => "the process is exiting",
            3 => {
                "this process was forked from one that uses CUDA: start it by spawn, or use CUDA only after the fork"
            }
            34 => "install the NVIDIA driver on this machine",
            36 => "update the NVIDIA driver",
            46 => "another process has the device to itself, or its compute mode forbids work",
            100 | 101 => "see `nvidia-smi -L` and CUDA_VISIBLE_DEVICES",
            // A context that is retained becomes invalid by a reset alone.
            201 | 709 => "someone reset the device; only a new process can use it again",
            214 | 220 | 226 => {
                "the hardware failed; see `nvidia-smi -q` and the kernel's log, and use the device in a new process"
            }
            700 | 702 | 710 | 714..=719 | 721 => {
                "work on the device broke, in this library's or another's kernel; only a new process can use the \
                 device again"
            }
            802 => "start the NVIDIA fabric manager",
            803 => "the NVIDIA kernel module and library differ in version; reboot after an update",
            805 | 807..=809 => "see the state of the MPS server",
            806 | 810 => {
                "the MPS server is gone, or has ended this process's work; only a new process can use the device again"
            }
            911 => "a device outside this process failed; only a new process can use this one again",
            999 => {
                "see `nvidia-smi` and the kernel's log for what broke; only a new process can use the device again"
            }
            900..=908 => "copies can't become part of a CUDA graph; call before or after the capture",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_stay_are_a_lost_device() {
        for sticky in [
            4, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999,
        ] {
            let kind = Status(sticky).kind();
            assert!(kind.leaves_memory_in_use(), "{sticky} is {kind:?}");
        }
    }

    #[test]
    fn errors_that_pass_leave_the_device_usable() {
        for (number, kind) in [
            (1, ErrorKind::InvalidArgument),
            (2, ErrorKind::OutOfMemory),
            (100, ErrorKind::NoSuchDevice),
            (101, ErrorKind::NoSuchDevice),
            (201, ErrorKind::InvalidHandle),
            (218, ErrorKind::Unsupported),
            (400, ErrorKind::InvalidHandle),
            (600, ErrorKind::NotReady),
            (712, ErrorKind::InvalidArgument),
            (801, ErrorKind::Unsupported),
            (900, ErrorKind::Refused),
            (123_456, ErrorKind::Refused),
        ] {
            assert_eq!(Status(number).kind(), kind, "{number}");
        }
    }

    #[test]
    fn what_stops_a_pin_is_its_limit_and_not_the_memory_of_the_device() {
        for number in [2, 304, 800] {
            assert_eq!(Status(number).kind_of_pinning(), ErrorKind::PinLimit, "{number}");
        }
        assert_eq!(Status(999).kind_of_pinning(), ErrorKind::Refused);
        assert_eq!(Status(712).kind_of_pinning(), ErrorKind::InvalidArgument);
        assert_eq!(Status(700).kind_of_pinning(), ErrorKind::DeviceLost);
    }

    #[test]
    fn errors_that_users_meet_come_with_advice() {
        for number in [2, 3, 36, 46, 100, 700, 802, 803, 900] {
            assert!(Status(number).advice().is_some(), "{number}");
        }
    }

    #[test]
    fn every_error_that_loses_the_device_comes_with_advice() {
        for number in (0..2000).filter(|number| Status(*number).kind() == ErrorKind::DeviceLost) {
            assert!(Status(number).advice().is_some(), "{number}");
        }
    }

    #[test]
    fn a_process_forked_from_one_that_uses_cuda_is_told_so() {
        assert!(Status(3).advice().unwrap().contains("forked"));
    }
}
