//! Large buffers that the channels of one thread share: lent while there are many bytes, given back as soon as they are
//! gone, so that neither large messages nor idle connections cost memory of their own.

use std::cell::RefCell;
use std::thread::LocalKey;

/// What a channel keeps of its own.
pub(super) const OWN_BYTES_MAX: usize = 16 * 1024;

/// The size of a spare: a whole read, and the beginning of a message in front of it.
const SPARE_BYTES: usize = 128 * 1024 + OWN_BYTES_MAX;

/// How many spares a thread keeps, and how many of what they replaced.
const SPARES_MAX: usize = 8;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    /// The own buffers of channels that have a spare.
    static REPLACED: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for so many more bytes.
#[inline]
pub(super) fn make_room(buffer: &mut Vec<u8>, more: usize) {
    let wanted = buffer.len() + more;
    if wanted > buffer.capacity() {
        grow(buffer, wanted);
    }
}

#[cold]
fn grow(buffer: &mut Vec<u8>, wanted: usize) {
    // A buffer grows to twice its size, so half of what a channel may keep is the most that it reaches by itself. What is
    // larger than a spare grows, and is freed, by itself too.
    if wanted <= OWN_BYTES_MAX / 2 || wanted > SPARE_BYTES {
        return;
    }
    let spare = SPARES.with_borrow_mut(Vec::pop);
    let mut large = spare.unwrap_or_else(|| Vec::with_capacity(SPARE_BYTES));
    large.extend_from_slice(buffer);
    let mut own = std::mem::replace(buffer, large);
    own.clear();
    if (1..=OWN_BYTES_MAX).contains(&own.capacity()) {
        keep(&REPLACED, own);
    }
}

/// Forgets what is in the buffer, and gives it back where it is large.
#[inline]
pub(super) fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > OWN_BYTES_MAX {
        give_back(buffer);
    }
}

#[cold]
fn give_back(buffer: &mut Vec<u8>) {
    let own = REPLACED.with_borrow_mut(Vec::pop).unwrap_or_default();
    let large = std::mem::replace(buffer, own);
    if large.capacity() == SPARE_BYTES {
        keep(&SPARES, large);
    }
}

fn keep(place: &'static LocalKey<RefCell<Vec<Vec<u8>>>>, buffer: Vec<u8>) {
    place.with_borrow_mut(|kept| {
        if kept.len() < SPARES_MAX {
            kept.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_goes_from_hand_to_hand() {
        let mut first = b"begin".to_vec();
        make_room(&mut first, 100);
        assert!(first.capacity() < OWN_BYTES_MAX);
        make_room(&mut first, OWN_BYTES_MAX);
        assert_eq!(
            (first.as_slice(), first.capacity()),
            (&b"begin"[..], SPARE_BYTES)
        );
        let place = first.as_ptr();
        empty(&mut first);
        assert!(first.is_empty() && (1..OWN_BYTES_MAX).contains(&first.capacity()));
        let mut second = Vec::new();
        make_room(&mut second, SPARE_BYTES);
        assert_eq!(second.as_ptr(), place);
        // Too large for any spare, and not kept.
        make_room(&mut second, SPARE_BYTES + 1);
        second.extend(vec![0; SPARE_BYTES + 1]);
        empty(&mut second);
        assert_eq!(second.capacity(), 0);
    }
}
