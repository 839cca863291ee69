//! Reads the entries of a tar one after the other, as a stream, without trusting the input.
//!
//! Nothing is written to a disk and no link is followed, so paths and links in the tar can do no harm. The `tar` crate
//! parses the headers; this file moves from one header to the next, since the crate would read a path of any length
//! into memory.

use std::io::{self, Read};

use tar::{EntryType, Header, PaxExtensions};

const BLOCK: usize = 512;
/// Longest extended header, in bytes. Paths have at most 4096, attributes (`xattr`) 64 KiB.
const LONGEST_EXTENSION: u64 = 1 << 20;

/// The reason why a tar cannot be read further.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The stream ends in the middle of an entry.
    #[error("it is cut off")]
    Truncated,
    /// A header has a wrong checksum or a field that cannot be parsed.
    #[error("it is no tar, or damaged")]
    Malformed,
    /// An extended header is too long; holds its size in bytes.
    #[error("it has an extended header of {0} bytes")]
    Extension(u64),
    /// The underlying reader failed; with the kind `TimedOut` if the deadline of the search has passed.
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// The type of an entry, as far as the audit needs it.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file. An entry of unknown type counts as a file, as POSIX demands.
    File,
    /// A hard or symbolic link to this path.
    Link(Vec<u8>),
    /// A directory, a device or a FIFO, which have no content.
    Other,
}

/// An entry; read its content from the [`Tar`].
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path in the tar. It need not be UTF-8, and may be absolute or contain `..`.
    pub path: Vec<u8>,
    /// The type of the entry.
    pub kind: Kind,
    /// Size of the content, in bytes.
    pub size: u64,
}

/// A reader of the content of the last entry that [`Tar::next_entry`] returned.
pub struct Tar<R> {
    inner: R,
    /// Number of bytes of the content that are not read yet. `padding` counts the bytes after the content.
    left: u64,
    padding: u64,
}

/// Values of extended headers, which apply to the entry after them.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl<R: Read> Tar<R> {
    /// Creates a reader of a tar that is not compressed, at its beginning.
    pub fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Returns the next entry and skips the rest of the previous one; `None` at the end.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            let Some(block) = self.header()? else { return Ok(None) };
            let header = Header::from_byte_slice(&block);
            let kind = header.entry_type();
            let size = header.entry_size().map_err(|_| TarError::Malformed)?;
            self.of_size(size);
            if kind.is_gnu_longname() {
                extensions.path = Some(until_nul(self.extension()?));
            } else if kind.is_gnu_longlink() {
                extensions.link = Some(until_nul(self.extension()?));
            } else if kind.is_pax_local_extensions() {
                let records = self.extension()?;
                extensions.read(&records)?;
            } else if !kind.is_pax_global_extensions() {
                return self.entry(header, kind, extensions).map(Some);
            }
        }
    }

    fn entry(&mut self, header: &Header, kind: EntryType, extensions: Extensions) -> Result<Entry, TarError> {
        if let Some(size) = extensions.size {
            self.of_size(size);
        }
        if kind.is_gnu_sparse() && header.as_gnu().is_some_and(tar::GnuHeader::is_extended) {
            // These blocks list the holes; the content does not include them.
            while self.block()?.ok_or(TarError::Truncated)?[504] == 1 {}
        }
        let path = extensions.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extensions.link.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
        let kind = match kind {
            EntryType::Link | EntryType::Symlink => Kind::Link(link.unwrap_or_default()),
            EntryType::Directory | EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Other,
            // POSIX says that an entry of unknown type is to be treated as a file.
            _ => Kind::File,
        };
        if kind != Kind::File {
            // No content follows, whatever size the header claims.
            self.of_size(0);
        }
        Ok(Entry { path, kind, size: self.left })
    }

    fn of_size(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn extension(&mut self) -> Result<Vec<u8>, TarError> {
        if self.left > LONGEST_EXTENSION {
            return Err(TarError::Extension(self.left));
        }
        let mut content = Vec::new();
        let length = self.left;
        if self.by_ref().take(length).read_to_end(&mut content)? as u64 != length {
            return Err(TarError::Truncated);
        }
        Ok(content)
    }

    /// Returns a header with a correct checksum; `None` at the end, which is a block of zeros or the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        match self.block()? {
            None => Ok(None),
            Some(block) if block.iter().all(|byte| *byte == 0) => Ok(None),
            Some(block) if is_header(&block) => Ok(Some(block)),
            Some(_) => Err(TarError::Malformed),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(block))
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let rest = self.left.checked_add(self.padding).ok_or(TarError::Malformed)?;
        (self.left, self.padding) = (0, 0);
        if io::copy(&mut self.inner.by_ref().take(rest), &mut io::sink())? == rest {
            Ok(())
        } else {
            Err(TarError::Truncated)
        }
    }
}

impl<R: Read> Read for Tar<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

impl Extensions {
    fn read(&mut self, records: &[u8]) -> Result<(), TarError> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(|_| TarError::Malformed)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let size = record.value().ok().and_then(|size| size.parse().ok());
                    self.size = Some(size.ok_or(TarError::Malformed)?);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// True if a block of 512 bytes begins a tar: its checksum is correct.
pub fn is_header(block: &[u8]) -> bool {
    if block.len() < BLOCK {
        return false;
    }
    let header = Header::from_byte_slice(&block[..BLOCK]);
    // The bytes of the checksum itself count as spaces.
    let sum: u32 = block[..148].iter().chain(&block[156..BLOCK]).map(|byte| u32::from(*byte)).sum();
    header.cksum().is_ok_and(|said| said == sum + 8 * u32::from(b' '))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
