use pinlane::{DType, Tensor};

fn main() -> Result<(), pinlane::Error> {
    let mut tensor = Tensor::zeros(DType::F32, &[4])?;
    let before = tensor.as_slice::<f32>()?;
    tensor.as_mut_slice::<f32>()?[0] = 1.0;
    println!("{before:?}");
    Ok(())
}
