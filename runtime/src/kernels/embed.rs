//! Token ids -> the sum of their word, segment and position vectors.

use super::cpu::{Cpu, per_cpu};

/// A table of word vectors, `[words, width]`.
#[derive(Clone, Copy, Debug)]
pub enum WordTable<'a> {
    /// As it was trained.
    F32(&'a [f32]),
    /// Bytes with one scale a row: `q * scale`.
    I8 {
        /// `[words, width]`.
        rows: &'a [i8],
        /// `[words]`.
        scales: &'a [f32],
    },
}

/// What the first vectors of an encoder are added up from.
#[derive(Clone, Copy, Debug)]
pub struct Embeddings<'a> {
    /// Chosen by the id of a token.
    pub words: WordTable<'a>,
    /// `[segments, width]`, chosen by the segment of a token (BERT: `token_type_ids`).
    pub segments: &'a [f32],
    /// `[positions, width]`, chosen by the place of a token: the first row is the first token's.
    pub positions: &'a [f32],
    /// Columns of each table.
    pub width: usize,
}

/// Why a token has no embedding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoEmbedding {
    /// Its id has no row in the word table.
    Word {
        /// The place of the token.
        place: usize,
        /// Its id.
        id: u32,
    },
    /// Its segment has no row in the segment table.
    Segment {
        /// The place of the token.
        place: usize,
        /// Its segment.
        segment: u32,
    },
    /// Its place has no row in the position table.
    Position {
        /// The place of the token.
        place: usize,
    },
}

/// `out [tokens, width]`: for each token `(word + segment) + position`.
///
/// # Errors
/// [`NoEmbedding`] for the first token that a table has no row for; `out` is then half written.
///
/// # Panics
/// When `ids`, `segments` and the rows of `out` differ in number, or the width is zero.
pub fn embed(
    cpu: Cpu,
    ids: &[u32],
    segments: &[u32],
    tables: &Embeddings<'_>,
    out: &mut [f32],
) -> Result<(), NoEmbedding> {
    assert_eq!(ids.len(), segments.len(), "every token has an id and a segment");
    assert_eq!(out.len(), ids.len() * tables.width, "the result is [tokens, width]");
    let width = tables.width;
    for (place, row) in out.chunks_exact_mut(width).enumerate() {
        let (id, segment) = (ids[place], segments[place]);
        let word = tables.words.row(id, width).ok_or(NoEmbedding::Word { place, id })?;
        let kind = row_of(tables.segments, segment as usize, width);
        let kind = kind.ok_or(NoEmbedding::Segment { place, segment })?;
        let position =
            row_of(tables.positions, place, width).ok_or(NoEmbedding::Position { place })?;
        add_up(cpu, word, kind, position, row);
    }
    Ok(())
}

/// The row of `table` that `index` chooses, counted from the end where it is negative, in `out [width]`;
/// `None` where there is none (ONNX: `Gather`).
pub fn gather_row(table: WordTable<'_>, index: i64, out: &mut [f32]) -> Option<()> {
    let rows = match table {
        WordTable::F32(values) => values.len() / out.len().max(1),
        WordTable::I8 { scales, .. } => scales.len(),
    };
    let index = if index < 0 { index.checked_add_unsigned(rows as u64)? } else { index };
    match table.row(u32::try_from(index).ok()?, out.len())? {
        Word::F32(values) => out.copy_from_slice(values),
        Word::I8(values, scale) => {
            out.iter_mut().zip(values).for_each(|(out, &value)| *out = f32::from(value) * scale);
        }
    }
    Some(())
}

enum Word<'a> {
    F32(&'a [f32]),
    I8(&'a [i8], f32),
}

impl<'a> WordTable<'a> {
    fn row(&self, id: u32, width: usize) -> Option<Word<'a>> {
        let id = id as usize;
        match *self {
            WordTable::F32(rows) => row_of(rows, id, width).map(Word::F32),
            WordTable::I8 { rows, scales } => {
                Some(Word::I8(row_of(rows, id, width)?, *scales.get(id)?))
            }
        }
    }
}

fn row_of<T>(table: &[T], row: usize, width: usize) -> Option<&[T]> {
    let start = row.checked_mul(width)?;
    table.get(start..start.checked_add(width)?)
}

fn add_up(cpu: Cpu, word: Word<'_>, segment: &[f32], position: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn body(word: Word<'_>, segment: &[f32], position: &[f32], out: &mut [f32]) {
        match word {
            Word::F32(values) => out.copy_from_slice(values),
            Word::I8(values, scale) => {
                out.iter_mut()
                    .zip(values)
                    .for_each(|(out, &value)| *out = f32::from(value) * scale);
            }
        }
        for ((out, segment), position) in out.iter_mut().zip(segment).zip(position) {
            *out = (*out + segment) + position;
        }
    }
    per_cpu!(cpu, body(word: Word<'_>, segment: &[f32], position: &[f32], out: &mut [f32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(words: WordTable<'_>) -> Embeddings<'_> {
        let (segments, positions) = (&[0.0, 0.0, 0.5, 0.5], &[10.0, 20.0, 30.0, 40.0]);
        Embeddings { words, segments, positions, width: 2 }
    }

    #[test]
    fn word_segment_and_position_are_added() {
        let (floats, bytes, scales) = ([0.0, 1.0, 2.0, 3.0], [0, 2, 4, 6], [0.5, 0.5]);
        for words in [WordTable::F32(&floats), WordTable::I8 { rows: &bytes, scales: &scales }] {
            let mut out = [0.0; 4];
            embed(Cpu::detect(), &[1, 0], &[0, 1], &tables(words), &mut out).unwrap();
            assert_eq!(out, [12.0, 23.0, 30.5, 41.5], "{words:?}");
        }
    }

    #[test]
    fn what_no_table_holds_is_an_error_that_names_the_token() {
        let words = [0.0; 4];
        let cases: [(&[u32], &[u32], NoEmbedding); 4] = [
            (&[0, 2], &[0, 0], NoEmbedding::Word { place: 1, id: 2 }),
            (&[u32::MAX], &[0], NoEmbedding::Word { place: 0, id: u32::MAX }),
            (&[0], &[2], NoEmbedding::Segment { place: 0, segment: 2 }),
            (&[0, 0, 0], &[0, 0, 0], NoEmbedding::Position { place: 2 }),
        ];
        for (ids, segments, error) in cases {
            let mut out = vec![0.0; ids.len() * 2];
            let result =
                embed(Cpu::detect(), ids, segments, &tables(WordTable::F32(&words)), &mut out);
            assert_eq!(result, Err(error));
        }
    }
}
