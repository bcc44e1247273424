//! The engine.

mod dtype;
mod element;
mod gather;
mod layout;

pub use dtype::{DType, DTypeError};
pub use element::Element;
pub use gather::StridedCopy;
pub use layout::{Layout, LayoutError};
