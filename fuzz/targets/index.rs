//! Indexes of shards. An input is an index.
//!
//! Whatever it is, reading it ends and does not panic. What is accepted names files beside the index only.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pinlane::checkpoint::ShardIndex;

fuzz_target!(|json: &[u8]| {
    let Ok(index) = ShardIndex::parse(json) else {
        return;
    };
    let folder = Path::new("/folder");
    for file in index.files().values() {
        let path = folder.join(file);
        assert_eq!(path.parent(), Some(folder), "{file:?}");
        assert_eq!(
            path.file_name().and_then(|name| name.to_str()),
            Some(file.as_str())
        );
        assert!(!file.contains(['/', '\\', '\0']) && file != "." && file != "..");
    }
});
