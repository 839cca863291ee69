//! Detects the type of a file in an archive and decompresses it.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use super::entries;

/// Largest window of zstd in bytes, all of which is kept in memory. Only `--long` and `--ultra` use more.
const LARGEST_WINDOW: u64 = 8 << 20;

/// Content whose beginning was already read.
type Begun<R> = io::Chain<Cursor<Vec<u8>>, R>;

/// The type of a file, by its beginning.
pub(super) enum Blob<R: Read> {
    Json(Begun<R>),
    Layer(Layer<R>),
    Other,
}

/// The tar of a layer.
pub(super) enum Layer<R: Read> {
    Plain(Begun<R>),
    Gzip(Box<MultiGzDecoder<Begun<R>>>),
    Zstd(Box<Zstd<Begun<R>>>),
}

impl<R: Read> Blob<R> {
    pub(super) fn of(mut reader: R) -> io::Result<Self> {
        let mut beginning = Vec::new();
        reader.by_ref().take(512).read_to_end(&mut beginning)?;
        // An empty tar consists of zeros.
        let tar = entries::is_header(&beginning)
            || (beginning.len() == 512 && beginning.iter().all(|byte| *byte == 0));
        let first = beginning.iter().find(|byte| !byte.is_ascii_whitespace()).copied();
        let (gzip, zstd) =
            (beginning.starts_with(&[0x1f, 0x8b]), beginning.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
        let content = Cursor::new(beginning).chain(reader);
        Ok(match first {
            _ if tar => Self::Layer(Layer::Plain(content)),
            _ if gzip => Self::Layer(Layer::Gzip(Box::new(MultiGzDecoder::new(content)))),
            _ if zstd => Self::Layer(Layer::Zstd(Box::new(Zstd { source: Some(content), frame: None }))),
            Some(b'{' | b'[') => Self::Json(content),
            _ => Self::Other,
        })
    }
}

impl<R: Read> Read for Layer<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(content) => content.read(buffer),
            Self::Gzip(content) => content.read(buffer),
            Self::Zstd(content) => content.read(buffer),
        }
    }
}

/// Reads all frames of a zstd stream. The decoder itself reads only one.
pub(super) struct Zstd<R: Read> {
    /// The stream between two frames.
    source: Option<R>,
    frame: Option<StreamingDecoder<Cursor1<R>, FrameDecoder>>,
}

/// One byte that was read to see whether another frame follows, and the rest of the stream.
type Cursor1<R> = io::Chain<Cursor<Vec<u8>>, R>;

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if let Some(frame) = &mut self.frame {
                let read = frame.read(buffer)?;
                if read > 0 {
                    return Ok(read);
                }
                // The chained byte of the previous frame is used up.
                self.source = self.frame.take().map(|frame| frame.into_inner().into_inner().1);
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            let mut first = Vec::with_capacity(1);
            if source.by_ref().take(1).read_to_end(&mut first)? == 0 {
                return Ok(0);
            }
            let frame =
                StreamingDecoder::new_with_max_window_size(Cursor::new(first).chain(source), LARGEST_WINDOW);
            self.frame = Some(frame.map_err(io::Error::other)?);
        }
    }
}
