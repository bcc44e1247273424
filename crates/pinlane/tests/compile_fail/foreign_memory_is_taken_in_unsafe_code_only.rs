use std::{ptr::NonNull, sync::Arc};

use pinlane::{DType, Layout, Tensor};

fn main() -> Result<(), pinlane::Error> {
    let owner = Arc::new([0_u8; 4]);
    let ptr = NonNull::from(&*owner).cast();
    let layout = Layout::contiguous(&[4])?;
    let _tensor = Tensor::from_raw_parts(ptr, 4, DType::U8, layout, None, owner)?;
    Ok(())
}
