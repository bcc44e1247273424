#![deny(unused_must_use)]

use pinlane::{DType, Device, Tensor, Tree};

fn main() -> Result<(), pinlane::Error> {
    let tensor = Tensor::zeros(DType::F32, &[4])?;
    tensor.transfer(&Device::open("sim:0")?)?;
    Ok(())
}
