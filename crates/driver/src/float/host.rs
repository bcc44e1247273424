//! The host's loop over elements, made anew for each pair of formats.
//!
//! Between `F32` and the formats of 16 bits it does several elements at once (`single`). Of a format of 8 bits it converts every
//! code that there is, and looks the others up. All else goes element by element (`coding`), at two or three nanoseconds each.

use super::{
    Conversion, Float,
    coding::{BF16, Coding, F8E4M3, F8E4M3Fnuz, F8E5M2, F8E5M2Fnuz, F8E8M0, F16, F32, F64},
    single::{of_bf16, of_f16, quiet, to_bf16, to_f16},
};

/// How many codes there are of a format of 8 bits.
const CODES: usize = 256;

/// From so many elements of 8 bits on, it takes less time to convert every code there is and look the others up.
pub(super) const WORTH_A_TABLE: usize = 16 * CODES;

/// Converts so many elements.
///
/// # Safety
///
/// `src` is valid for reads of so many elements and `dst` for writes of as many; they do not overlap.
pub(super) unsafe fn convert(conversion: Conversion, src: *const u8, dst: *mut u8, elements: usize) {
    let (from, to) = (conversion.from(), conversion.to());
    // SAFETY: the caller's promise, for each; a table has an entry for every code.
    unsafe {
        match (from, to) {
            (Float::F32, Float::F16) => each::<4, 2>(|code| to_f16(code as u32), src, dst, elements),
            (Float::F32, Float::BF16) => each::<4, 2>(|code| to_bf16(code as u32), src, dst, elements),
            (Float::F16, Float::F32) => each::<2, 4>(|code| quiet(of_f16(code)), src, dst, elements),
            (Float::F16, Float::BF16) => each::<2, 2>(|code| to_bf16(of_f16(code)), src, dst, elements),
            (Float::BF16, Float::F32) => each::<2, 4>(|code| quiet(of_bf16(code)), src, dst, elements),
            (Float::BF16, Float::F16) => each::<2, 2>(|code| to_f16(of_bf16(code)), src, dst, elements),
            _ if from.bytes() == 1 && elements >= WORTH_A_TABLE => {
                let table = table(conversion);
                let look_up = |code: u64| table[code as usize % CODES];
                match to.bytes() {
                    8 => each::<1, 8>(look_up, src, dst, elements),
                    4 => each::<1, 4>(look_up, src, dst, elements),
                    2 => each::<1, 2>(look_up, src, dst, elements),
                    _ => each::<1, 1>(look_up, src, dst, elements),
                }
            }
            (Float::F64, _) => convert_to::<8>(F64::widen, to, src, dst, elements),
            (Float::F32, _) => convert_to::<4>(F32::widen, to, src, dst, elements),
            (Float::F16, _) => convert_to::<2>(F16::widen, to, src, dst, elements),
            (Float::BF16, _) => convert_to::<2>(BF16::widen, to, src, dst, elements),
            (Float::F8E4M3, _) => convert_to::<1>(F8E4M3::widen, to, src, dst, elements),
            (Float::F8E5M2, _) => convert_to::<1>(F8E5M2::widen, to, src, dst, elements),
            (Float::F8E8M0, _) => convert_to::<1>(F8E8M0::widen, to, src, dst, elements),
            (Float::F8E4M3Fnuz, _) => convert_to::<1>(F8E4M3Fnuz::widen, to, src, dst, elements),
            (Float::F8E5M2Fnuz, _) => convert_to::<1>(F8E5M2Fnuz::widen, to, src, dst, elements),
        }
    }
}

/// What becomes of every code of a format of 8 bits.
fn table(conversion: Conversion) -> [u64; CODES] {
    let width = conversion.to().bytes();
    std::array::from_fn(|code| {
        let mut converted = [0; 8];
        conversion.convert(&[code as u8], &mut converted[..width]);
        u64::from_le_bytes(converted)
    })
}

/// Converts elements of `WIDTH` bytes each, which `widen` reads.
///
/// # Safety
///
/// As for [`convert`].
unsafe fn convert_to<const WIDTH: usize>(
    widen: impl Fn(u64) -> u64,
    to: Float,
    src: *const u8,
    dst: *mut u8,
    elements: usize,
) {
    // SAFETY: the caller's promise, for each.
    unsafe {
        match to {
            Float::F64 => each::<WIDTH, 8>(|code| F64::narrow(widen(code)), src, dst, elements),
            Float::F32 => each::<WIDTH, 4>(|code| F32::narrow(widen(code)), src, dst, elements),
            Float::F16 => each::<WIDTH, 2>(|code| F16::narrow(widen(code)), src, dst, elements),
            Float::BF16 => each::<WIDTH, 2>(|code| BF16::narrow(widen(code)), src, dst, elements),
            Float::F8E4M3 => each::<WIDTH, 1>(|code| F8E4M3::narrow(widen(code)), src, dst, elements),
            Float::F8E5M2 => each::<WIDTH, 1>(|code| F8E5M2::narrow(widen(code)), src, dst, elements),
            Float::F8E4M3Fnuz => each::<WIDTH, 1>(|code| F8E4M3Fnuz::narrow(widen(code)), src, dst, elements),
            Float::F8E5M2Fnuz => each::<WIDTH, 1>(|code| F8E5M2Fnuz::narrow(widen(code)), src, dst, elements),
            Float::F8E8M0 => unreachable!("no conversion is to it"),
        }
    }
}

/// Makes each element, of `FROM` bytes, another of `TO` bytes.
///
/// # Safety
///
/// As for [`convert`].
#[inline]
unsafe fn each<const FROM: usize, const TO: usize>(
    convert: impl Fn(u64) -> u64,
    src: *const u8,
    dst: *mut u8,
    elements: usize,
) {
    for element in 0..elements {
        let mut code = [0; 8];
        // SAFETY: inside the range that the caller promises. Not by way of references: others may look at a simulated
        // device's memory meanwhile, and get garbage.
        let read = unsafe { src.add(element * FROM).cast::<[u8; FROM]>().read_unaligned() };
        code[..FROM].copy_from_slice(&read);
        let code = convert(u64::from_le_bytes(code)).to_le_bytes();
        let mut write = [0; TO];
        write.copy_from_slice(&code[..TO]);
        // SAFETY: as above.
        unsafe { dst.add(element * TO).cast::<[u8; TO]>().write_unaligned(write) };
    }
}
