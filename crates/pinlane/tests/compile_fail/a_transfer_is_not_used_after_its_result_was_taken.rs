use pinlane::{DType, Device, Tensor, Tree};

fn main() -> Result<(), pinlane::Error> {
    let tensor = Tensor::zeros(DType::F32, &[4])?;
    let transfer = tensor.transfer(&Device::open("sim:0")?)?;
    let _there = transfer.wait()?;
    let _done = transfer.is_done();
    let _again = transfer.wait()?;
    Ok(())
}
