//! Memory of others, moved by its addresses.

#![cfg(not(shuttle))]

mod rig;

use std::{ptr::NonNull, sync::Arc, time::Duration};

use pinlane::{
    DType, Device, Direction, Error, Layout, Pieces, Route, StridedCopy, Transfer,
    driver::{DeviceMemory, DevicePtr, Stream, Timing},
};
use rig::{Rig, pattern, small_engine};

const SLOT: usize = 64 << 10;
/// How far apart pieces lie in memory that they share.
const STEP: usize = 512;

/// The bytes of each piece: none, some, all that fits, and what a slot does not hold.
fn pieces() -> Vec<Vec<u8>> {
    let mut pieces: Vec<_> = (0..300)
        .map(|seed| pattern(seed * 7 % (STEP + 1), seed))
        .collect();
    pieces.push(pattern(3 * SLOT + 5, 7));
    pieces
}

/// Where each piece begins, and where the last ends.
fn offsets(pieces: &[Vec<u8>]) -> (Vec<usize>, usize) {
    let mut end = 0;
    let offsets = pieces.iter().map(|piece| {
        let offset = end;
        end += piece.len().next_multiple_of(STEP).max(STEP);
        offset
    });
    (offsets.collect(), end)
}

fn room(device: &Device, bytes: usize) -> Arc<DeviceMemory> {
    Arc::new(DeviceMemory::new(device.driver().unwrap(), bytes).unwrap())
}

fn start(pieces: Pieces, owner: impl Send + Sync + 'static) -> Transfer<()> {
    // SAFETY: the tests' pieces lie in memory that the owner keeps, or that outlives the transfer, and that nobody else
    // touches meanwhile.
    unsafe { pieces.start(None, Arc::new(owner), false) }.unwrap()
}

/// Has the pieces moved to one allocation of the device.
fn sent(device: &Device, sources: &Arc<Vec<Vec<u8>>>, apart: bool) -> (Arc<DeviceMemory>, Transfer<()>) {
    let (offsets, end) = offsets(sources);
    let room = room(device, end);
    let mut pieces = Pieces::new(device, Direction::ToDevice, sources.len()).unwrap();
    if apart {
        pieces = pieces.apart();
    }
    for (source, offset) in sources.iter().zip(offsets) {
        let host = NonNull::from(&source[..]).cast();
        pieces.push(room.ptr().offset(offset), host, source.len(), false);
    }
    let transfer = start(pieces, (Arc::clone(sources), Arc::clone(&room)));
    (room, transfer)
}

/// The first `bytes` bytes of an allocation.
fn read(device: &Device, room: &Arc<DeviceMemory>, bytes: usize) -> Vec<u8> {
    let mut read = vec![0u8; bytes];
    let mut pieces = Pieces::new(device, Direction::ToHost, 1).unwrap();
    pieces.push(room.ptr(), NonNull::from(&mut read[..]).cast(), bytes, false);
    start(pieces, Arc::clone(room)).wait().unwrap();
    read
}

#[test]
fn every_byte_arrives_together_or_apart_and_comes_back() {
    let rig = Rig::open(1, &small_engine(2, 2, SLOT));
    let sources = Arc::new(pieces());
    let (offsets, end) = offsets(&sources);
    for apart in [false, true] {
        let (room, transfer) = sent(rig.device(), &sources, apart);
        transfer.help();
        transfer.wait().unwrap();
        let there = read(rig.device(), &room, end);
        let mut back = Pieces::new(rig.device(), Direction::ToHost, sources.len())
            .unwrap()
            .apart();
        let mut results: Vec<_> = sources.iter().map(|source| vec![0u8; source.len()]).collect();
        for ((source, &offset), result) in sources.iter().zip(&offsets).zip(&mut results) {
            assert!(there[offset..][..source.len()] == source[..], "at {offset}");
            let host = NonNull::from(&mut result[..]).cast();
            back.push(room.ptr().offset(offset), host, source.len(), false);
        }
        start(back, room).wait().unwrap();
        assert!(results == *sources);
    }
    drop(sources);
    rig.finish();
}

#[test]
fn in_one_allocation_they_share_copies_and_apart_nothing_between_is_touched() {
    let rig = Rig::open(1, &small_engine(2, 2, SLOT));
    let sources = Arc::new(vec![vec![7u8; 500]; 20]);
    let (room, together) = sent(rig.device(), &sources, false);
    assert_eq!(
        together
            .plans()
            .map(|plan| plan.chunks_by(Route::Packed))
            .sum::<usize>(),
        1
    );
    together.wait().unwrap();
    // What lies between is written by another: it has to stay when the pieces come again, apart.
    let between = Arc::new(vec![vec![9u8; STEP * 20]]);
    let mut whole = Pieces::new(rig.device(), Direction::ToDevice, 1).unwrap();
    whole.push(
        room.ptr(),
        NonNull::from(&between[0][..]).cast(),
        STEP * 20,
        false,
    );
    start(whole, (between, Arc::clone(&room))).wait().unwrap();
    let mut apart = Pieces::new(rig.device(), Direction::ToDevice, 20)
        .unwrap()
        .apart();
    for (number, source) in sources.iter().enumerate() {
        let host = NonNull::from(&source[..]).cast();
        apart.push(room.ptr().offset(number * STEP), host, source.len(), false);
    }
    start(apart, (sources, Arc::clone(&room))).wait().unwrap();
    for row in read(rig.device(), &room, STEP * 20).chunks(STEP) {
        assert!(row[..500] == [7; 500] && row[500..] == [9; STEP - 500]);
    }
    drop(room);
    rig.finish();
}

#[test]
fn scattered_elements_are_gathered_and_only_towards_a_device() {
    let rig = Rig::open(1, &small_engine(2, 2, SLOT));
    let source = Arc::new((0..60).collect::<Vec<u8>>());
    let transposed = Layout::contiguous(&[6, 10]).unwrap().transpose(0, 1).unwrap();
    let copy = StridedCopy::new(&transposed, DType::U8).unwrap();
    let room = room(rig.device(), 60);
    let host = NonNull::from(&source[..]).cast();
    let mut pieces = Pieces::new(rig.device(), Direction::ToDevice, 1).unwrap();
    pieces.push_strided(room.ptr(), host, copy.clone()).unwrap();
    start(pieces, (Arc::clone(&source), Arc::clone(&room)))
        .wait()
        .unwrap();
    let expected: Vec<u8> = (0..10)
        .flat_map(|column| (0..6).map(move |row| row * 10 + column))
        .collect();
    assert_eq!(read(rig.device(), &room, 60), expected);
    let mut back = Pieces::new(rig.device(), Direction::ToHost, 1).unwrap();
    let refused = back.push_strided(room.ptr(), host, copy);
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
    drop((room, back));
    rig.finish();
}

#[test]
fn they_go_from_one_device_to_another_where_there_is_a_way() {
    let rig = Rig::new(2, &small_engine(2, 2, SLOT));
    let sources = Arc::new(pieces());
    let (offsets, end) = offsets(&sources);
    let (from, transfer) = sent(&rig.devices[0], &sources, false);
    transfer.wait().unwrap();
    let to = room(&rig.devices[1], end);
    let mut pieces = Pieces::new(&rig.devices[1], Direction::OnDevice, sources.len()).unwrap();
    for (source, &offset) in sources.iter().zip(&offsets) {
        let (at, from) = (to.ptr().offset(offset), from.ptr().offset(offset));
        pieces.push_peer(at, &rig.devices[0], from, source.len()).unwrap();
    }
    start(pieces, (from, Arc::clone(&to))).wait().unwrap();
    let there = read(&rig.devices[1], &to, end);
    for (source, offset) in sources.iter().zip(offsets) {
        assert!(there[offset..][..source.len()] == source[..], "at {offset}");
    }
    let stranger = Rig::new(1, &small_engine(1, 1, SLOT));
    let mut pieces = Pieces::new(stranger.device(), Direction::OnDevice, 1).unwrap();
    let refused = pieces.push_peer(DevicePtr(1), &rig.devices[0], to.ptr(), 1);
    assert!(matches!(refused, Err(Error::NoPath { .. })), "{refused:?}");
    drop((to, pieces, sources));
    stranger.finish();
    rig.finish();
}

#[test]
fn no_copy_starts_before_the_event() {
    let rig = Rig::new(1, &small_engine(2, 2, SLOT));
    let stream = Stream::new(rig.device().driver().unwrap()).unwrap();
    stream
        .driver()
        .busy(Duration::from_millis(50), stream.raw())
        .unwrap();
    let event = Arc::new(stream.record(Timing::Disabled).unwrap());
    let source = Arc::new(vec![3u8; 1000]);
    let room = room(rig.device(), 1000);
    let mut pieces = Pieces::new(rig.device(), Direction::ToDevice, 1).unwrap();
    pieces.push(room.ptr(), NonNull::from(&source[..]).cast(), 1000, false);
    let owner = (source, Arc::clone(&room));
    // SAFETY: source and room live in the owner, and nobody else touches them meanwhile.
    let transfer = unsafe { pieces.start(Some(Arc::clone(&event)), Arc::new(owner), true) }.unwrap();
    transfer.wait().unwrap();
    assert!(event.query().unwrap());
    assert_eq!(read(rig.device(), &room, 1000), [3; 1000]);
    drop((room, event, stream));
    rig.finish();
}

#[test]
fn the_host_moves_no_pieces() {
    let refused = Pieces::new(&Device::host(), Direction::ToDevice, 1);
    assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
}
