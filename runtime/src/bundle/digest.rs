//! The digest of a bundle: BLAKE3 of what it says, on two threads where there is much of it. Opening a bundle
//! takes about as long as this does.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};

use super::{DIGEST, KEY, SIGNATURE};
use crate::map::Bytes;
use crate::trust::Digest;

/// Fewer bytes take one thread less time than starting another.
const FEW_BYTES: usize = 1 << 20;

/// What the second thread needs to hash, several times over.
const STACK_BYTES: usize = 128 << 10;

/// BLAKE3 of the bundle `bytes`, which has a whole header, without its digest, its key and its signature.
pub(super) fn digest(bytes: &[u8]) -> Digest {
    let said = Said::of(bytes);
    Digest(*said.hashed(0..said.len()).finalize().as_bytes())
}

/// As [`digest`], with the help of another thread where there is much to do and one is to be had.
pub(super) fn digest_of_shared(bytes: &Arc<Bytes>) -> Digest {
    let length = Said::of(bytes).len();
    if length < FEW_BYTES {
        return digest(bytes);
    }
    let work = Arc::new(Work::new(Arc::clone(bytes), length));
    let helper = Arc::clone(&work);
    let other = thread::Builder::new().stack_size(STACK_BYTES).spawn(move || helper.work());
    work.work();
    // Waiting for it is all that is left: its values are looked for below.
    let _ended = other.map(JoinHandle::join);
    work.digest()
}

/// The subtrees of a bundle that are hashed by whoever comes first.
struct Work {
    bytes: Arc<Bytes>,
    whole: Range<usize>,
    /// The longest of `subtrees`, in bytes.
    most: usize,
    subtrees: Vec<(Range<usize>, OnceLock<ChainingValue>)>,
    next: AtomicUsize,
}

impl Work {
    fn new(bytes: Arc<Bytes>, length: usize) -> Work {
        let (whole, most) = (0..length, length / 8);
        let mut work = Work { bytes, whole, most, subtrees: Vec::new(), next: AtomicUsize::new(0) };
        work.cut(work.whole.clone());
        work
    }

    /// Adds the subtrees of `range`, in order.
    fn cut(&mut self, range: Range<usize>) {
        if range.len() <= self.most {
            self.subtrees.push((range, OnceLock::new()));
        } else {
            halves(&range).into_iter().for_each(|half| self.cut(half));
        }
    }

    /// Hashes subtrees until all are taken.
    fn work(&self) {
        while let Some(subtree) = self.subtrees.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            self.value(subtree);
        }
    }

    fn value(&self, (range, value): &(Range<usize>, OnceLock<ChainingValue>)) -> ChainingValue {
        *value.get_or_init(|| Said::of(&self.bytes).hashed(range.clone()).finalize_non_root())
    }

    fn digest(&self) -> Digest {
        let mut values = self.subtrees.iter().map(|subtree| self.value(subtree));
        let [left, right] = halves(&self.whole).map(|half| self.joined(half, &mut values));
        Digest(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    /// The value of the root of `range`, from the next of `values`, which are those of the subtrees.
    fn joined(
        &self,
        range: Range<usize>,
        values: &mut impl Iterator<Item = ChainingValue>,
    ) -> ChainingValue {
        if range.len() <= self.most {
            return values.next().expect("a value for each subtree that `cut` made");
        }
        let [left, right] = halves(&range).map(|half| self.joined(half, values));
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }
}

/// The two subtrees below the root of `range`.
fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + left_subtree_len(range.len() as u64) as usize;
    [range.start..middle, middle..range.end]
}

/// Bytes in three parts that are hashed as one.
struct Said<'a>([&'a [u8]; 3]);

impl<'a> Said<'a> {
    fn of(bytes: &'a [u8]) -> Said<'a> {
        Said([&bytes[..DIGEST.start], &bytes[DIGEST.end..KEY.start], &bytes[SIGNATURE.end..]])
    }

    fn len(&self) -> usize {
        self.0.iter().map(|part| part.len()).sum()
    }

    /// A hasher that was given the bytes of `range`, which begins with a chunk.
    fn hashed(&self, range: Range<usize>) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.set_input_offset(range.start as u64);
        let mut start = 0;
        for part in self.0 {
            let within = |place: usize| place.clamp(start, start + part.len()) - start;
            hasher.update(&part[within(range.start)..within(range.end)]);
            start += part.len();
        }
        hasher
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::HEADER_BYTES;

    #[test]
    fn the_digest_is_the_same_on_two_threads() {
        let bytes: Vec<u8> =
            (0..5_000_000_u32).map(|it| (it.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for length in [
            HEADER_BYTES,
            5000,
            FEW_BYTES + 127,
            FEW_BYTES + 128,
            FEW_BYTES + 129,
            1 << 21,
            (1 << 21) + 129,
            3_333_333,
            (1 << 22) + 128,
            5_000_000,
        ] {
            let bytes = Arc::new(Bytes::of(bytes[..length].to_vec()));
            let said = [&bytes[..24], &bytes[56..64], &bytes[160..]].concat();
            let expected = Digest(*blake3::hash(&said).as_bytes());
            assert_eq!(
                (digest(&bytes), digest_of_shared(&bytes)),
                (expected, expected),
                "{length}"
            );
        }
    }
}
