use std::{ptr::NonNull, rc::Rc, sync::Arc};

use pinlane::{DType, Layout, Tensor};

struct Owner(Rc<[u8; 4]>);

fn main() -> Result<(), pinlane::Error> {
    let owner = Owner(Rc::new([0; 4]));
    let ptr = NonNull::from(&*owner.0).cast();
    let layout = Layout::contiguous(&[4])?;
    let _tensor = unsafe { Tensor::from_raw_parts(ptr, 4, DType::U8, layout, None, Arc::new(owner)) }?;
    Ok(())
}
