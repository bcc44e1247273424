use pinlane::{DType, Device, Tensor, Tree};

fn main() -> Result<(), pinlane::Error> {
    let tensor = Tensor::zeros(DType::F32, &[4])?;
    let transfer = tensor.transfer(&Device::open("sim:0")?)?;
    let _both = (transfer.clone(), transfer);
    Ok(())
}
