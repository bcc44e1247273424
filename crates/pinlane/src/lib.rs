//! The engine.

mod dtype;
mod element;
pub mod fill;
mod gather;
mod layout;
pub mod random;
pub mod reduce;
mod scalar;

pub use dtype::{DType, DTypeError};
pub use element::Element;
pub use fill::{Arange, FillError};
pub use gather::StridedCopy;
pub use layout::{Layout, LayoutError};
pub use scalar::Scalar;
