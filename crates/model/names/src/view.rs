//! Looks names and addresses up in a table, without copying it.
//!
//! In: bytes, of whatever origin. Out: addresses, names. Nothing is checked beforehand but the header: each step checks
//! what it reads, so that garbage gives no answer or a wrong one, and never a panic.

use std::cmp::Ordering;
use std::net::IpAddr;

use crate::layout::{self, ADDRESS_BYTES, FORMAT, HEADER_BYTES, MAGIC, REVERSE_BYTES, ROW_BYTES, address_of};

/// Why bytes are no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadTableError {
    /// They don't begin as one, or end too early.
    #[error("not a table of names")]
    Malformed,
    /// They are in a format that isn't known here.
    #[error("table of names has format {found}, known is {FORMAT}")]
    Format {
        /// Theirs.
        found: u32,
    },
}

/// A table, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    rows: &'a [u8],
    addresses: &'a [u8],
    reverse: &'a [u8],
    text: &'a [u8],
    network: &'a [u8],
}

impl<'a> View<'a> {
    /// Finds the parts of a table.
    ///
    /// # Errors
    /// When there is no room for the parts that the header promises, or the format isn't known.
    pub fn read(bytes: &'a [u8]) -> Result<Self, ReadTableError> {
        let header = bytes.get(..HEADER_BYTES).filter(|header| header.starts_with(MAGIC));
        let header = header.ok_or(ReadTableError::Malformed)?;
        let number = |place: usize| number_at(header, place).ok_or(ReadTableError::Malformed);
        let format = number(8)?;
        if format != FORMAT {
            return Err(ReadTableError::Format { found: format });
        }
        let mut rest = &bytes[HEADER_BYTES..];
        let mut part = |count: u32, size: usize| {
            let length = (count as usize).checked_mul(size).ok_or(ReadTableError::Malformed)?;
            let (part, behind) = rest.split_at_checked(length).ok_or(ReadTableError::Malformed)?;
            rest = behind;
            Ok(part)
        };
        let rows = part(number(12)?, ROW_BYTES)?;
        let addresses = part(number(16)?, ADDRESS_BYTES)?;
        let reverse = part(number(20)?, REVERSE_BYTES)?;
        let network = rest.get(..number(24)? as usize).ok_or(ReadTableError::Malformed)?;
        Ok(Self { rows, addresses, reverse, text: rest, network })
    }

    /// The name of the network.
    pub fn network(&self) -> &'a [u8] {
        self.network
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.rows.len() / ROW_BYTES
    }

    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The addresses of a name without final dot, in whatever case; `None` when there is no such name.
    pub fn find(&self, name: &[u8]) -> Option<Addresses<'a>> {
        let row = search(self.rows, ROW_BYTES, |row| Some(order(self.name_of_row(row)?, name)))?;
        let (first, count) = (number_at(row, 8)? as usize, number_at(row, 12)? as usize);
        let start = first.checked_mul(ADDRESS_BYTES)?;
        let end = count.checked_mul(ADDRESS_BYTES)?.checked_add(start)?;
        Some(Addresses { bytes: self.addresses.get(start..end)? })
    }

    /// Whose address this is, as it was written.
    pub fn name_of(&self, address: IpAddr) -> Option<&'a [u8]> {
        let wanted = layout::address_bytes(address);
        let entry =
            search(self.reverse, REVERSE_BYTES, |entry| Some(entry.get(..ADDRESS_BYTES)?.cmp(&wanted[..])))?;
        self.text_at(number_at(entry, 16)?, number_at(entry, 20)?)
    }

    fn name_of_row(&self, row: &[u8]) -> Option<&'a [u8]> {
        let length = u16::from_le_bytes(row.get(4..6)?.try_into().ok()?);
        self.text_at(number_at(row, 0)?, length.into())
    }

    fn text_at(&self, start: u32, length: u32) -> Option<&'a [u8]> {
        let start = start as usize;
        self.text.get(start..start.checked_add(length as usize)?)
    }
}

/// The addresses of one name. There may be none of a kind, or none at all.
#[derive(Debug, Clone, Copy)]
pub struct Addresses<'a> {
    bytes: &'a [u8],
}

impl Addresses<'_> {
    /// In the table's order: IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let (whole, _) = self.bytes.as_chunks::<ADDRESS_BYTES>();
        whole.iter().map(|address| address_of(*address))
    }
}

fn number_at(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(place..place + 4)?.try_into().ok()?))
}

/// A name of a table against one that is asked for.
fn order(stored: &[u8], asked: &[u8]) -> Ordering {
    stored.iter().copied().cmp(asked.iter().map(u8::to_ascii_lowercase))
}

/// Binary search over entries of one size. An entry that can't be read ends it.
fn search(entries: &[u8], size: usize, compare: impl Fn(&[u8]) -> Option<Ordering>) -> Option<&[u8]> {
    let (mut low, mut high) = (0, entries.len() / size);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = entries.get(middle * size..(middle + 1) * size)?;
        match compare(entry)? {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle,
            Ordering::Equal => return Some(entry),
        }
    }
    None
}
