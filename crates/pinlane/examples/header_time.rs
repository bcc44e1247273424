use std::time::Instant;
fn main() {
    for n in [20_000usize, 100_000] {
        let mut s = String::from("{");
        for i in 0..n {
            if i > 0 {
                s.push(',');
            }
            s += &format!(
                "\"model.layers.{}.mlp.experts.{}.down_proj.weight\":{{\"dtype\":\"BF16\",\"shape\":[64,64],\"data_offsets\":[{},{}]}}",
                i % 60,
                i,
                i * 8192,
                (i + 1) * 8192
            );
        }
        s.push('}');
        let f = tempfile::NamedTempFile::new().unwrap();
        use std::io::Write;
        f.as_file().write_all(&(s.len() as u64).to_le_bytes()).unwrap();
        f.as_file().write_all(s.as_bytes()).unwrap();
        f.as_file().set_len((8 + s.len() + n * 8192) as u64).unwrap();
        for _ in 0..4 {
            let t = Instant::now();
            let h = pinlane::checkpoint::Header::parse(s.as_bytes(), (n * 8192) as u64).unwrap();
            let a = t.elapsed();
            let t = Instant::now();
            let c = pinlane::Checkpoint::open(f.path()).unwrap();
            let b = t.elapsed();
            let t = Instant::now();
            let v: Vec<_> = c.entries().map(|e| e.tensor().unwrap()).collect();
            println!(
                "{n} {} MB parse {a:?} open {b:?} tensors {:?}",
                s.len() as f64 / 1e6,
                t.elapsed()
            );
            drop((h, v));
        }
    }
}
