//! Machines that tests make up.

use pinlane::MemcpyRate;
use pinlane_driver::{LinkState, PcieLink};

use crate::{
    Accelerator, Accelerators, Disk, Facts, Host, IoUring, LinkRates, Memory, Node, Pinning, Python,
    Surroundings, Torch,
};

/// A link that exists.
pub(crate) fn pcie(generation: u32, width: u32) -> PcieLink {
    PcieLink::new(generation, width).unwrap()
}

/// A server with an H200 of which nothing is wrong.
pub(crate) fn sound() -> Facts {
    let link = pcie(5, 16);
    Facts {
        host: Host {
            processor: Some("Some Chip".to_owned()),
            kernel: Some("6.8.0".to_owned()),
            online: (0..32).collect(),
            allowed: (0..32).collect(),
            quota: None,
            nodes: (0..2)
                .map(|number| Node {
                    number,
                    cores: (16 * number..16 * (number + 1)).collect(),
                })
                .collect(),
        },
        memory: Memory {
            total: Some(256 << 30),
            available: Some(200 << 30),
            limit: None,
            huge_pages: Some("madvise".to_owned()),
            reserved_huge_pages: Some(0),
            huge_page_bytes: Some(2 << 20),
            locked_limit: Some(None),
        },
        surroundings: Surroundings {
            container: None,
            wsl: false,
            shared_memory: Some(128 << 30),
        },
        busy_elsewhere: Some(0.2),
        memcpy: [(1, 10.7e9), (2, 20e9), (4, 36e9), (8, 38e9), (16, 42e9)]
            .map(|(threads, rate)| MemcpyRate::new(threads, rate))
            .to_vec(),
        disk: Disk {
            folder: "/tmp".into(),
            file_system: Some("ext4".to_owned()),
            bytes: 32 << 20,
            written: Some(1e9),
            cached: Some(20e9),
            direct: Some(7e9),
            refused: None,
        },
        io_uring: IoUring::Works,
        python: Some(Python {
            program: "/usr/bin/python3".into(),
            version: "3.12.1".to_owned(),
            torch: Some(Torch {
                version: "2.11.0+cu130".to_owned(),
                cuda: Some("13.0".to_owned()),
            }),
            pinlane: None,
        }),
        accelerators: Accelerators {
            devices: vec![Accelerator {
                name: "cuda:0".to_owned(),
                product: "NVIDIA H200".to_owned(),
                memory: 141 << 30,
                copy_engines: 3,
                pci_address: Some("0000:17:00.0".to_owned()),
                numa_node: Some(0),
                library: Some("CUDA 13.0".to_owned()),
                link: link.to_string(),
                link_rate: Some(link.bytes_per_second()),
                link_state: Some(LinkState::new(link).in_slot(Some(link)).by_itself(Some(link))),
                measured: Some(LinkRates {
                    to_device: 55.0e9,
                    to_host: 55.4e9,
                    both: 101e9,
                }),
                pinning: Some(Pinning {
                    bytes: 64 << 20,
                    seconds: 0.01,
                }),
                tuned: true,
                refused: Vec::new(),
                left_out: None,
                unusable: None,
                simulated: false,
            }],
            hardware: vec!["PCI slot 0000:17:00.0".to_owned()],
            absent: None,
            kernel_driver: Some("580.95.05".to_owned()),
        },
    }
}

/// The same without a GPU.
pub(crate) fn without_gpu(absent: &str, hardware: &[&str]) -> Facts {
    Facts {
        accelerators: Accelerators {
            absent: Some(absent.to_owned()),
            hardware: hardware.iter().map(|&place| place.to_owned()).collect(),
            ..Accelerators::default()
        },
        ..sound()
    }
}
