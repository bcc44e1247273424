//! The `pinlane` command.

fn main() {}
