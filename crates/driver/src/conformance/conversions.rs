//! Conversions: bit by bit what the host makes of the same elements, and nothing else, in the call's place.

use super::{
    Outcome, Stop, Subject,
    bytes::{ensure_equal, pattern},
    ensure_error, if_supported,
    rig::Queue,
};
use crate::{Conversion, DevicePtr, ErrorKind, Float, MemCopy};

impl Queue {
    /// Enqueues a conversion of this case's own memory.
    fn convert(
        &self,
        conversion: Conversion,
        [dst, src]: [DevicePtr; 2],
        elements: usize,
    ) -> crate::Result<()> {
        // SAFETY: by the rule of the rig both ends outlive the queue, which drains before it goes; cases name ranges that
        // lie apart.
        unsafe { self.driver().convert(conversion, dst, src, elements, self.raw()) }
    }
}

/// What the host makes of these elements.
fn on_the_host(conversion: Conversion, src: &[u8]) -> Vec<u8> {
    let mut dst = vec![0; src.len() / conversion.from().bytes() * conversion.to().bytes()];
    conversion.convert(src, &mut dst);
    dst
}

/// Elements of a format: all that there are of up to 16 bits; of the others both signs and the exponents with mantissas that
/// are zero, one, all ones, a tie or beside one at every width, and ones that nobody chose.
fn elements(float: Float) -> Vec<u8> {
    let (width, mantissa_bits) = match float {
        Float::F64 => (8, 52),
        Float::F32 => (4, 23),
        _ if float.bytes() == 2 => return (0..=u16::MAX).flat_map(u16::to_le_bytes).collect(),
        _ => return (0..=u8::MAX).collect(),
    };
    let mut bytes = pattern(1, 8 * 20_000);
    let mask = (1_u64 << mantissa_bits) - 1;
    let largest = (1 << (8 * width - mantissa_bits - 1)) - 1;
    for upper in 0..1 << (8 * width - mantissa_bits) {
        // Between those that no other format has and the last ones, exponents of doubles are all alike.
        let exponent: u64 = upper & largest;
        if (2..largest - 2).contains(&exponent) && exponent.abs_diff(largest / 2) > 160 {
            continue;
        }
        for tie in 0..=mantissa_bits {
            for near in [0_u64.wrapping_sub(1), 0, 1] {
                let mantissa = (1_u64 << tie).wrapping_add(near) & mask;
                for mantissa in [mantissa, mask ^ mantissa] {
                    let element = (upper << mantissa_bits | mantissa).to_le_bytes();
                    bytes.extend_from_slice(&element[..width]);
                }
            }
        }
    }
    bytes
}

/// How far into its memory the second of two ranges begins that a case uses.
const APART: usize = 32 << 20;

pub(super) fn every_format_becomes_every_other_bit_by_bit_as_on_the_host(subject: &Subject) -> Outcome {
    let memory = subject.memory(2 * APART)?;
    let queue = subject.queue()?;
    let (src, dst) = (memory.ptr(), memory.ptr().offset(APART));
    for from in Float::ALL {
        let bytes = elements(from);
        queue.put(src, &bytes)?;
        for conversion in Conversion::all().filter(|conversion| conversion.from() == from) {
            let expected = on_the_host(conversion, &bytes);
            if_supported(queue.convert(conversion, [dst, src], bytes.len() / from.bytes()))?;
            let found = queue.fetch(dst, expected.len())?;
            queue.synchronize()?;
            ensure_equal_elements(conversion, &bytes, &found, &expected)?;
        }
    }
    Ok(())
}

/// Fails unless the two are equal, and names the first element that differs.
fn ensure_equal_elements(conversion: Conversion, src: &[u8], found: &[u8], expected: &[u8]) -> Outcome {
    let (from, to) = (conversion.from().bytes(), conversion.to().bytes());
    let elements = src.chunks(from).zip(found.chunks(to).zip(expected.chunks(to)));
    for (element, (found, expected)) in elements {
        if found != expected {
            let shown = |bytes: &[u8]| {
                bytes
                    .iter()
                    .rev()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            };
            return Err(Stop::Failed(format!(
                "{conversion}: 0x{} became 0x{} and should be 0x{}",
                shown(element),
                shown(found),
                shown(expected)
            )));
        }
    }
    Ok(())
}

/// Pairs of each two widths, in both orders.
fn pairs_of_widths() -> impl Iterator<Item = Conversion> {
    let floats = [Float::F64, Float::F32, Float::BF16, Float::F8E5M2];
    floats
        .into_iter()
        .flat_map(move |from| floats.into_iter().filter_map(move |to| Conversion::new(from, to)))
}

pub(super) fn elements_begin_anywhere_and_their_neighbours_stay(subject: &Subject) -> Outcome {
    const LONGEST: usize = 3000;
    // Room for the longest and an element on either side of it.
    const ROOM: usize = 8 * (LONGEST + 16);
    let memory = subject.memory(2 * ROOM)?;
    let queue = subject.queue()?;
    for conversion in pairs_of_widths() {
        let (from, to) = (conversion.from().bytes(), conversion.to().bytes());
        for count in [1, 2, 3, 7, 31, 33, 255, 257, LONGEST] {
            for (first, into) in [(0, 1), (1, 2), (3, 1), (5, 7)] {
                let source = pattern(count as u64, ROOM);
                let before = pattern(2, ROOM);
                queue.put(memory.ptr(), &source)?;
                queue.put(memory.ptr().offset(ROOM), &before)?;
                let src = memory.ptr().offset(first * from);
                let dst = memory.ptr().offset(ROOM + into * to);
                if_supported(queue.convert(conversion, [dst, src], count))?;
                let mut expected = before;
                let converted = on_the_host(conversion, &source[first * from..(first + count) * from]);
                expected[into * to..(into + count) * to].copy_from_slice(&converted);
                let found = queue.fetch(memory.ptr().offset(ROOM), ROOM)?;
                queue.synchronize()?;
                let what = format!("{count} elements, {conversion}, from element {first} to element {into}");
                ensure_equal(&found, &expected, &what)?;
            }
        }
    }
    Ok(())
}

pub(super) fn more_elements_than_a_device_has_threads_are_converted(subject: &Subject) -> Outcome {
    const ELEMENTS: usize = 3_000_001;
    let memory = subject.memory(2 * APART)?;
    let queue = subject.queue()?;
    let (src, dst) = (memory.ptr(), memory.ptr().offset(APART));
    let conversion = conversion(Float::F32, Float::BF16);
    let source = pattern(1, 4 * ELEMENTS);
    queue.put(src, &source)?;
    if_supported(queue.convert(conversion, [dst, src], ELEMENTS))?;
    let found = queue.fetch(dst, 2 * ELEMENTS)?;
    queue.synchronize()?;
    ensure_equal(
        &found,
        &on_the_host(conversion, &source),
        "three million elements",
    )
}

pub(super) fn a_conversion_keeps_its_place_in_the_stream(subject: &Subject) -> Outcome {
    const ELEMENTS: usize = 100_001;
    // A copy that takes a while, and leaves the device's compute idle meanwhile: who converts too early finds zeros.
    let (before, delay) = (subject.pinned(APART)?, subject.memory(APART)?);
    let mut source = subject.pinned(4 * ELEMENTS)?;
    let (src, dst) = (subject.memory(4 * ELEMENTS)?, subject.memory(2 * ELEMENTS)?);
    let kept = subject.memory(2 * ELEMENTS)?;
    let queue = subject.queue()?;
    let conversion = conversion(Float::F32, Float::F16);
    source.fill(1);
    queue.memset(src.ptr(), 0, 4 * ELEMENTS)?;
    queue.synchronize()?;
    queue.copy(MemCopy::to_device(delay.ptr(), before.ptr(), APART))?;
    queue.copy(MemCopy::to_device(src.ptr(), source.ptr(), 4 * ELEMENTS))?;
    if_supported(queue.convert(conversion, [dst.ptr(), src.ptr()], ELEMENTS))?;
    queue.copy(MemCopy::on_device(kept.ptr(), dst.ptr(), 2 * ELEMENTS))?;
    queue.memset(src.ptr(), 0, 4 * ELEMENTS)?;
    queue.memset(dst.ptr(), 0, 2 * ELEMENTS)?;
    let found = queue.fetch(kept.ptr(), 2 * ELEMENTS)?;
    queue.synchronize()?;
    ensure_equal(
        &found,
        &on_the_host(conversion, source.read()),
        "converted between a copy and a fill",
    )
}

pub(super) fn nothing_is_converted_where_there_are_no_elements(subject: &Subject) -> Outcome {
    let memory = subject.memory(64)?;
    let queue = subject.queue()?;
    queue.put(memory.ptr(), &pattern(1, 64))?;
    for conversion in Conversion::all() {
        if_supported(queue.convert(conversion, [memory.ptr(), memory.ptr().offset(32)], 0))?;
    }
    queue.ensure_pattern(&memory, 1, "beside conversions of nothing")
}

pub(super) fn elements_that_are_not_aligned_are_refused(subject: &Subject) -> Outcome {
    let memory = subject.memory(128)?;
    let queue = subject.queue()?;
    let (dst, src) = (memory.ptr(), memory.ptr().offset(64));
    queue.put(memory.ptr(), &pattern(1, 128))?;
    let narrowing = conversion(Float::F32, Float::F16);
    if_supported(queue.convert(narrowing, [dst, src], 0))?;
    for ends in [[dst.offset(1), src], [dst, src.offset(2)]] {
        let refused = queue.convert(narrowing, ends, 4);
        ensure_error(
            refused,
            ErrorKind::InvalidArgument,
            "a conversion of parts of elements",
        )?;
    }
    queue.ensure_pattern(&memory, 1, "beside conversions that were refused")
}

fn conversion(from: Float, to: Float) -> Conversion {
    Conversion::new(from, to).expect("it has a sign and a zero")
}
