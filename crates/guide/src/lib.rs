//! The guide as a program.
