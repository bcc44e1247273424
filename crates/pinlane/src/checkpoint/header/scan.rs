//! JSON, byte by byte: as much of it as headers have. Nothing is passed over, so whoever reads sees every name that is given
//! twice and every field that nobody knows; and nothing is copied that stands there as it is meant.

use std::borrow::Cow;

use serde::Deserialize as _;

use super::LENGTH;
use crate::checkpoint::{HeaderFault, json};

/// Where the text is no JSON, or other JSON than a header has; and why.
pub(super) struct Broken {
    at: usize,
    reason: Cow<'static, str>,
}

impl Broken {
    /// The fault of a header, whose JSON begins behind its length; found while a tensor's fields were read, if it was.
    pub(super) fn fault(self, tensor: Option<&str>) -> HeaderFault {
        HeaderFault::Json {
            tensor: tensor.map(str::to_owned),
            offset: LENGTH + self.at as u64,
            reason: self.reason.into_owned(),
        }
    }
}

/// Reads the words of a text one after the other.
pub(super) struct Scanner<'a> {
    text: &'a str,
    /// The same, byte by byte.
    json: &'a [u8],
    /// What comes next.
    at: usize,
}

/// An object or array whose members are being read.
pub(super) struct Members {
    close: u8,
    is_first: bool,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(json: &'a [u8]) -> Result<Self, Broken> {
        match std::str::from_utf8(json) {
            Ok(text) => Ok(Self { text, json, at: 0 }),
            Err(error) => Err(Broken {
                at: error.valid_up_to(),
                reason: "this is no UTF-8".into(),
            }),
        }
    }

    /// Begins an object; `what` says in errors what one was expected.
    #[inline]
    pub(super) fn object(&mut self, what: &str) -> Result<Members, Broken> {
        self.open(b'{', b'}', what)
    }

    /// Begins an array.
    #[inline]
    pub(super) fn array(&mut self, what: &str) -> Result<Members, Broken> {
        self.open(b'[', b']', what)
    }

    #[inline]
    fn open(&mut self, open: u8, close: u8, what: &str) -> Result<Members, Broken> {
        self.take(open, what)?;
        Ok(Members {
            close,
            is_first: true,
        })
    }

    /// Whether another member comes; where none does, the object or array has ended.
    #[inline]
    pub(super) fn has_next(&mut self, members: &mut Members) -> Result<bool, Broken> {
        let is_first = std::mem::replace(&mut members.is_first, false);
        let next = self.peek();
        if next == Some(members.close) {
            self.at += 1;
            return Ok(false);
        }
        if is_first {
            return Ok(true);
        }
        if next != Some(b',') {
            return Err(self.unexpected(&format!("`,` or `{}`", char::from(members.close))));
        }
        self.at += 1;
        if self.peek() == Some(members.close) {
            return Err(self.unexpected("another member after the comma"));
        }
        Ok(true)
    }

    /// Takes a text that is written like this, with its quotes, where that comes next: much sooner done than reading any.
    #[inline]
    pub(super) fn takes(&mut self, written: &[u8]) -> bool {
        self.peek();
        let is_there = self.json[self.at..].starts_with(written);
        if is_there {
            self.at += written.len();
        }
        is_there
    }

    /// The name of an object's member.
    #[inline]
    pub(super) fn name(&mut self) -> Result<Cow<'a, str>, Broken> {
        self.text("a name")
    }

    /// The colon between a name and its value.
    #[inline]
    pub(super) fn colon(&mut self) -> Result<(), Broken> {
        self.take(b':', "`:`")
    }

    /// A text.
    #[inline]
    pub(super) fn text(&mut self, what: &str) -> Result<Cow<'a, str>, Broken> {
        self.take(b'"', what)?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            match self.json.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    has_escapes = true;
                    self.at += 2;
                }
                Some(0x20..) => self.at += 1,
                Some(_) => return Err(self.broken("a control character, which has to be escaped")),
                None => {
                    self.at = self.json.len();
                    return Err(self.broken("the text has no end"));
                }
            }
        }
        let inside = start..self.at;
        self.at += 1;
        if has_escapes {
            return unescaped(&self.json[start - 1..self.at], start - 1).map(Cow::Owned);
        }
        Ok(Cow::Borrowed(&self.text[inside]))
    }

    /// A whole number that is not negative.
    #[inline]
    pub(super) fn number(&mut self, what: &str) -> Result<u64, Broken> {
        let Some(mut digit @ b'0'..=b'9') = self.peek() else {
            return Err(self.unexpected(what));
        };
        let start = self.at;
        let mut number = 0_u64;
        let mut is_too_long = false;
        while digit.is_ascii_digit() {
            let digits = number.checked_mul(10);
            let digits = digits.and_then(|number| number.checked_add(u64::from(digit - b'0')));
            is_too_long |= digits.is_none();
            number = digits.unwrap_or(0);
            self.at += 1;
            digit = self.json.get(self.at).copied().unwrap_or(b' ');
        }
        if is_too_long {
            self.at = start;
            return Err(self.broken("this number has more than 64 bits"));
        }
        if self.json[start] == b'0' && self.at > start + 1 {
            self.at = start;
            return Err(self.broken("a number begins with no 0"));
        }
        if matches!(digit, b'.' | b'e' | b'E') {
            return Err(self.unexpected("a number without a fraction and an exponent"));
        }
        Ok(number)
    }

    /// Where in the file the next word begins.
    #[inline]
    pub(super) fn offset(&mut self) -> u64 {
        self.peek();
        LENGTH + self.at as u64
    }

    /// Where in the file the last word ended.
    #[inline]
    pub(super) fn behind(&self) -> u64 {
        LENGTH + self.at as u64
    }

    /// Refuses what comes after the last word.
    pub(super) fn end(&mut self) -> Result<(), Broken> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected("the end")),
        }
    }

    /// The next byte that is no white space; goes there.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.json.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                next => return next.copied(),
            }
        }
    }

    /// Takes one sign; `what` says in errors what was expected.
    #[inline]
    pub(super) fn take(&mut self, byte: u8, what: &str) -> Result<(), Broken> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        Err(self.unexpected(what))
    }

    #[cold]
    fn unexpected(&self, what: &str) -> Broken {
        let found = match self.json.get(self.at) {
            None => "the end".to_owned(),
            Some(b'{') => "an object".to_owned(),
            Some(b'[') => "an array".to_owned(),
            Some(b'"') => "a text".to_owned(),
            Some(b'-') => "a negative number".to_owned(),
            Some(b'0'..=b'9') => "a number".to_owned(),
            Some(byte) => format!("`{}`", byte.escape_ascii()),
        };
        self.broken(format!("expected {what}, found {found}"))
    }

    /// What is wrong with what comes next.
    #[cold]
    pub(super) fn broken(&self, reason: impl Into<Cow<'static, str>>) -> Broken {
        Broken {
            at: self.at,
            reason: reason.into(),
        }
    }
}

/// What a text says, which is written with its quotes and has escapes; it begins at `at` of the whole.
#[cold]
fn unescaped(text: &[u8], at: usize) -> Result<String, Broken> {
    json::parse(
        text,
        |deserializer, _| String::deserialize(deserializer),
        |offset, reason| Broken {
            at: at + offset,
            reason: reason.into(),
        },
    )
}
