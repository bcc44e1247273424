use pinlane::{DType, Tensor};

fn main() -> Result<(), pinlane::Error> {
    let elements = {
        let tensor = Tensor::zeros(DType::F32, &[4])?;
        tensor.as_slice::<f32>()?
    };
    println!("{elements:?}");
    Ok(())
}
