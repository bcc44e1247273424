//! Descriptions in words.

use std::ops::Range;

use pinlane::{DType, Direction};

use super::{DIRECTIONS, DescribeError, Description, Group, Impossible, MEMORY, Size, dtype, named};

/// A word, and where it stands.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    at: usize,
}

impl Word<'_> {
    fn range(&self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }
}

/// The words that are left.
struct Words<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Words<'a> {
    /// The next word. A plus is one by itself.
    fn peek(&self) -> Option<Word<'a>> {
        let rest = &self.text[self.at..];
        let start = rest.find(|character: char| !character.is_whitespace())?;
        let rest = &rest[start..];
        let end = match rest.find(|character: char| character.is_whitespace() || character == '+') {
            Some(0) => 1,
            Some(end) => end,
            None => rest.len(),
        };
        Some(Word {
            text: &rest[..end],
            at: self.at + start,
        })
    }

    fn next(&mut self) -> Option<Word<'a>> {
        let word = self.peek()?;
        self.at = word.range().end;
        Some(word)
    }

    /// The next word, if `wanted` makes something of it.
    fn next_if<T>(&mut self, wanted: impl FnOnce(Word<'a>) -> Option<T>) -> Option<T> {
        let found = wanted(self.peek()?)?;
        self.next();
        Some(found)
    }

    fn wrong(&self, part: Range<usize>, reason: impl Into<String>) -> DescribeError {
        DescribeError::new(self.text, part, reason)
    }

    /// Something is missing where the text ends.
    fn missing(&self, reason: &str) -> DescribeError {
        self.wrong(self.text.len()..self.text.len(), reason)
    }
}

pub(super) fn parse(text: &str) -> Result<Description, DescribeError> {
    let mut words = Words { text, at: 0 };
    let mut groups = vec![group(&mut words)?];
    while words.next_if(|word| (word.text == "+").then_some(())).is_some() {
        groups.push(group(&mut words)?);
    }
    let place = words.peek().map(|word| word.range());
    let memory = words.next_if(|word| named(&MEMORY, word.text));
    let turned = words.peek().filter(|word| word.text == "to");
    let direction = direction(&mut words)?;
    if let Some(word) = words.peek() {
        let reason = match memory {
            _ if named(&MEMORY, word.text).is_some() && memory.is_none() && turned.is_some() => format!(
                "the memory comes before the direction: write `{} to {}`",
                word.text,
                if direction == Direction::ToHost {
                    "host"
                } else {
                    "device"
                }
            ),
            None => format!(
                "{:?} is neither a memory (pageable, pinned, strided, file), nor `to device` or `to host`, nor the type of \
                 the elements (f32, bf16, i64, ...)",
                word.text
            ),
            Some(_) => format!("{:?} stands where only `to device` or `to host` may", word.text),
        };
        return Err(words.wrong(word.range(), reason));
    }
    let memory = memory.unwrap_or_default();
    Description::new(groups, memory, direction).map_err(|impossible| {
        let part = match impossible {
            Impossible::NothingLands { .. } => place.unwrap_or(0..text.len()),
            _ => 0..text.len(),
        };
        words.wrong(part, impossible.to_string())
    })
}

/// `100x1M f32`, `64MiB`.
fn group(words: &mut Words<'_>) -> Result<Group, DescribeError> {
    let Some(word) = words.next() else {
        return Err(words.missing("tensors are missing here, such as 100x1M f32, or 64MiB"));
    };
    let (count, size) = match counted(words, word) {
        Some((count, None)) => {
            return Err(words.missing(&format!(
                "the size of {} tensors is missing here, such as 1M f32 or 64MiB",
                count.text
            )));
        }
        Some((count, Some(size))) => {
            let (part, count) = (count.range(), count.text);
            let number = count.parse().ok().filter(|&number: &usize| number > 0);
            let count = number.ok_or_else(|| {
                words.wrong(
                    part,
                    format!("{count:?} is no number of tensors; write, such as, 100x1M f32"),
                )
            })?;
            (count, size)
        }
        None => (1, word),
    };
    let (number, unit) = number(words, size)?;
    let elements = words.next_if(|word| dtype(word.text));
    let size = match (unit, elements) {
        (Unit::Bytes, None) => Size::Bytes(number),
        (Unit::Bytes, Some(dtype)) => elements_in(number, dtype).ok_or_else(|| {
            words.wrong(
                size.range(),
                format!("{number} bytes are no whole number of elements of {dtype}"),
            )
        })?,
        (Unit::Elements, Some(dtype)) => Size::Elements { count: number, dtype },
        (Unit::Elements, None) => {
            let part = words
                .peek()
                .map_or(words.text.len()..words.text.len(), |word| word.range());
            return Err(words.wrong(
                part,
                "the type of the elements belongs here, such as f32, bf16 or i64; or write the size in bytes, such as 64MiB",
            ));
        }
    };
    Group::new(count, size).map_err(|impossible| words.wrong(word.range(), impossible.to_string()))
}

/// The number of tensors and the size of each in `100x1M`, `100 x 1M` and the like, where there is a number of them.
fn counted<'a>(words: &mut Words<'a>, word: Word<'a>) -> Option<(Word<'a>, Option<Word<'a>>)> {
    let times = |character: char| matches!(character, 'x' | 'X' | '*' | '\u{d7}');
    let end_of = |word: Word<'a>, size: &'a str| Word {
        text: size,
        at: word.range().end - size.len(),
    };
    let (count, size) = match word.text.split_once(times) {
        Some((count, size)) => (Word { text: count, ..word }, end_of(word, size)),
        None => {
            let size = words.next_if(|next| {
                let size = next.text.strip_prefix(times)?;
                Some(end_of(next, size))
            })?;
            (word, size)
        }
    };
    if size.text.is_empty() {
        return Some((count, words.next()));
    }
    Some((count, Some(size)))
}

/// What a number counts.
#[derive(Clone, Copy)]
enum Unit {
    Elements,
    Bytes,
}

fn number(words: &Words<'_>, word: Word<'_>) -> Result<(u64, Unit), DescribeError> {
    let digits = word.text.len()
        - word
            .text
            .trim_start_matches(|character: char| character.is_ascii_digit())
            .len();
    let (number, unit) = word.text.split_at(digits);
    let wrong = |reason: String| words.wrong(word.range(), reason);
    if unit.starts_with(['.', ',']) {
        return Err(wrong(format!(
            "{:?} has a fraction; write whole numbers, such as 1500k elements, or 1536KiB without a type",
            word.text
        )));
    }
    let number: u64 = number.parse().map_err(|_| {
        wrong(format!(
            "{:?} is no size; write elements, such as 1M, or bytes, such as 64MiB",
            word.text
        ))
    })?;
    let powers = |base: u64, power: u32| {
        base.checked_pow(power)
            .and_then(|factor| number.checked_mul(factor))
    };
    let (letter, rest) = unit.split_at_checked(1).unwrap_or((unit, ""));
    let power = match letter {
        "" => 0,
        "B" if rest.is_empty() => return Ok((number, Unit::Bytes)),
        "k" | "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => {
            return Err(wrong(format!(
                "{unit:?} is no unit; there are k, M, G and T for elements, KiB, MiB, MB for bytes"
            )));
        }
    };
    let (found, unit) = match rest {
        "" => (powers(1000, power), Unit::Elements),
        "iB" => (powers(1024, power), Unit::Bytes),
        "B" => (powers(1000, power), Unit::Bytes),
        _ => {
            return Err(wrong(format!(
                "{unit:?} is no unit; there are k, M, G and T for elements, KiB, MiB, MB for bytes"
            )));
        }
    };
    let found = found.ok_or_else(|| wrong("that is more than can be counted".to_owned()))?;
    Ok((found, unit))
}

/// The elements of `dtype` that fill so many bytes.
fn elements_in(bytes: u64, dtype: DType) -> Option<Size> {
    let count = bytes.checked_mul(8)? / dtype.bits() as u64;
    let size = Size::Elements { count, dtype };
    (size.bytes() == Some(bytes)).then_some(size)
}

/// `to device`, `to host`, or nothing.
fn direction(words: &mut Words<'_>) -> Result<Direction, DescribeError> {
    if words.next_if(|word| (word.text == "to").then_some(())).is_none() {
        return Ok(Direction::ToDevice);
    }
    let Some(word) = words.next() else {
        return Err(words.missing("`to` what? device or host"));
    };
    named(&DIRECTIONS, word.text).ok_or_else(|| {
        words.wrong(
            word.range(),
            format!("{:?} is neither device nor host", word.text),
        )
    })
}

#[cfg(test)]
mod tests;
