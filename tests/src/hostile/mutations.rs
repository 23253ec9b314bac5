//! The same mutations on every machine: what a fuzzer does first, without a fuzzer.

/// Numbers at which sizes and sums go wrong.
const EXTREMES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// `count` mutations of `seeds`, each of one to four changes.
pub fn mutations(seeds: &[Vec<u8>], count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    (0..count).map(move |index| {
        let mut bytes = seeds[index % seeds.len()].clone();
        for _ in 0..=chance.below(4) {
            let other = &seeds[chance.below(seeds.len())];
            mutate(&mut bytes, other, &mut chance);
        }
        bytes
    })
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], chance: &mut Chance) {
    // Headers, where the structure is, get half of the changes.
    let reach = if chance.below(2) == 0 { bytes.len() } else { bytes.len().min(1024) };
    let place = chance.below(reach + 1);
    let longest = 2 << chance.below(7);
    let span = chance.below(longest);
    let end = (place + span).min(bytes.len());
    match chance.below(8) {
        0 if place < bytes.len() => bytes[place] ^= 1 << chance.below(8),
        1 if place < bytes.len() => bytes[place] = chance.below(256) as u8,
        2 => drop(bytes.drain(place..end)),
        3 => {
            let repeated = bytes[place..end].to_vec();
            bytes.splice(place..place, repeated);
        }
        4 => {
            let from = chance.below(other.len() + 1);
            let taken = other[from..(from + span).min(other.len())].to_vec();
            bytes.splice(place..end, taken);
        }
        5 => {
            let extreme = EXTREMES[chance.below(EXTREMES.len())].to_le_bytes();
            let width = [1, 4, 8][chance.below(3)].min(bytes.len() - place);
            bytes[place..place + width].copy_from_slice(&extreme[..width]);
        }
        // A number in a text.
        6 => {
            let Some(start) = bytes[place..].iter().position(u8::is_ascii_digit) else { return };
            let start = place + start;
            let digits = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let extreme = EXTREMES[chance.below(EXTREMES.len())].to_string();
            bytes.splice(start..start + digits, extreme.into_bytes());
        }
        _ => bytes.truncate(bytes.len() - chance.below(span + 1).min(bytes.len())),
    }
}

/// Marsaglia's xorshift (2003), 64 bits.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
