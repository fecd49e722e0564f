//! As much of Thrift's compact protocol as bounds of Parquet need: what a page unpacks to, and how deep a schema is.
//!
//! The library believes these numbers and makes room for them before it reads on, so they are looked at first.

/// LIMIT: structs within structs.
const DEPTH_MAX: usize = 16;

// Kinds of values.
const TRUE: u8 = 1;
const I8: u8 = 3;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

/// The larger of the sizes, packed and unpacked, that the header of a page names; `None` where it is no header.
pub(super) fn page_bytes(header: &[u8]) -> Option<u64> {
    let mut most = None;
    Compact { rest: header }.fields(|field, kind, from| {
        if !matches!((field, kind), (2 | 3, I32)) {
            return from.skip(kind, DEPTH_MAX);
        }
        let bytes = u64::try_from(from.number()?).ok()?;
        most = most.max(Some(bytes));
        Some(())
    })?;
    most
}

/// How many elements the schema of a footer has; `None` where it is no footer, or an element has more children than
/// there are elements.
pub(super) fn schema_elements(footer: &[u8]) -> Option<usize> {
    let mut most = None;
    Compact { rest: footer }.fields(|field, kind, from| {
        if (field, kind) != (2, LIST) {
            return from.skip(kind, DEPTH_MAX);
        }
        let (count, of) = from.list()?;
        for _ in 0..count {
            if of != STRUCT {
                return None;
            }
            from.fields(|field, kind, from| match (field, kind) {
                (5, I32) => (0..=count as i64).contains(&from.number()?).then_some(()),
                _ => from.skip(kind, DEPTH_MAX),
            })?;
        }
        most = most.max(Some(count));
        Some(())
    })?;
    most
}

struct Compact<'a> {
    rest: &'a [u8],
}

impl Compact<'_> {
    /// Hands each field of a struct to `each`, which is to read its value.
    fn fields(&mut self, mut each: impl FnMut(i64, u8, &mut Self) -> Option<()>) -> Option<()> {
        let mut field = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            field = match head >> 4 {
                0 => self.number()?,
                step => field + i64::from(step),
            };
            each(field, head & 0x0f, self)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            0..=2 => Some(()),
            I8 => self.pass(1),
            4..=I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            BINARY => {
                let bytes = self.varint()?;
                self.pass(usize::try_from(bytes).ok()?)
            }
            LIST | SET => {
                let (count, of) = self.list()?;
                (0..count).try_for_each(|_| self.skip_element(of, depth))
            }
            MAP => self.skip_map(depth),
            STRUCT => self.fields(|_, kind, from| from.skip(kind, depth)),
            UUID => self.pass(16),
            _ => None,
        }
    }

    /// A truth is a byte where it stands in a list, and in the field's head else.
    fn skip_element(&mut self, kind: u8, depth: usize) -> Option<()> {
        if matches!(kind, TRUE | 2) { self.pass(1) } else { self.skip(kind, depth) }
    }

    fn skip_map(&mut self, depth: usize) -> Option<()> {
        let count = self.varint()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        (0..count).try_for_each(|_| {
            self.skip_element(kinds >> 4, depth)?;
            self.skip_element(kinds & 0x0f, depth)
        })
    }

    /// How many elements a list has, and of which kind. Each takes a byte at least.
    fn list(&mut self) -> Option<(usize, u8)> {
        let head = self.byte()?;
        let count = match head >> 4 {
            15 => usize::try_from(self.varint()?).ok()?,
            few => usize::from(few),
        };
        let of = head & 0x0f;
        (of != 0 && count <= self.rest.len()).then_some((count, of))
    }

    fn number(&mut self) -> Option<i64> {
        let folded = self.varint()?;
        Some((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn pass(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_size_of_a_page_counts() {
        // Fields 1 to 3 are of 32 bits, the fifth is a struct with a list of truths; the number 200 has two bytes.
        let header = [0x15, 0x00, 0x15, 0x90, 0x03, 0x15, 0x14, 0x2c, 0x19, 0x21, 0x01, 0x02, 0x00, 0x00];
        assert_eq!(page_bytes(&header), Some(200));
        for end in 0..header.len() {
            assert_eq!(page_bytes(&header[..end]), None, "{end}");
        }
        // Told twice, the library takes the last one; a size below nothing is none.
        assert_eq!(page_bytes(&[0x25, 0x02, 0x05, 0x04, 0x90, 0x03, 0x00]), Some(200));
        assert_eq!(page_bytes(&[0x25, 0x01, 0x00]), None);
        assert_eq!(page_bytes(&[0x15, 0x00, 0x00]), None);
        let deep = [[0x1c].repeat(DEPTH_MAX + 1), [0x00].repeat(DEPTH_MAX + 2)].concat();
        assert_eq!(page_bytes(&deep), None);
    }

    #[test]
    fn a_schema_has_no_more_children_than_elements() {
        let footer = |children: u8| [0x15, 0x02, 0x19, 0x2c, 0x55, children, 0x00, 0x15, 0x0a, 0x00, 0x00];
        assert_eq!(schema_elements(&footer(2)), Some(2));
        assert_eq!(schema_elements(&footer(6)), None, "three children of two elements");
        assert_eq!(schema_elements(&footer(1)), None, "fewer than none");
        assert_eq!(schema_elements(&[0x19, 0xfc, 0xff, 0xff, 0x7f, 0x00]), None, "more elements than bytes");
    }
}
