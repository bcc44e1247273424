use pinlane::{DType, Element};

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
struct Celsius(f32);

impl Element for Celsius {
    const DTYPE: DType = DType::F64;
}

fn main() {}
