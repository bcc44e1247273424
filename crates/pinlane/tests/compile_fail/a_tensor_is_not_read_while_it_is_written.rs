use pinlane::{DType, Device, Tensor, Tree};

fn main() -> Result<(), pinlane::Error> {
    let mut tensor = Tensor::zeros(DType::F32, &[4])?;
    let elements = tensor.as_mut_slice::<f32>()?;
    let transfer = tensor.transfer(&Device::open("sim:0")?)?;
    elements[0] = 1.0;
    transfer.wait()?;
    Ok(())
}
