//! Limits on what a server may send: the length of a message, the total of one session, and no types for which the
//! client library would have to ask.
//!
//! The library keeps a message until it is complete, no matter which length the server announces, and the rows of an
//! answer until the last one. A malicious server could thus exhaust the controller's memory and end the rotations of
//! everybody else.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio_postgres::types::Type;

/// Longest message, including the four bytes of its length.
pub(super) const MESSAGE: usize = 1 << 20;
/// Maximum number of bytes in one session, counted with [`EACH`] and [`COLUMN`].
pub(super) const SESSION: usize = 16 << 20;
/// Number of bytes that a message counts in addition to its own, and (`COLUMN`) that a column of a row or of a
/// description counts. The client library keeps about as much for each, so many small messages take no more memory than
/// a few large ones.
const EACH: usize = 256;
const COLUMN: usize = 32;
/// Maximum number of bytes that all sessions of the process may use together, in addition to the [`OWN`] bytes of each.
/// The controller has 192 MiB and handles eight secrets at once.
const TOGETHER: usize = 48 << 20;
/// Number of bytes that every session may use before its bytes count towards [`TOGETHER`]. Only creating a pair from a
/// large database needs more.
const OWN: usize = 1 << 20;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// The reason why keyturn closed the connection to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HungUp {
    #[error("it began a message of {0} bytes, and keyturn accepts at most 1 MiB")]
    Message(usize),
    #[error("it sent more than the 16 MiB that keyturn accepts in one session")]
    Session,
    #[error("all servers together have sent the 48 MiB that keyturn accepts at the same time")]
    Together,
    #[error("it sent a malformed description of columns")]
    Malformed,
}

/// The reason, kept for the holder of the session: the client library only says that the session is closed.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<OnceLock<HungUp>>);

impl Verdict {
    pub(super) fn why(&self) -> Option<HungUp> {
        self.0.get().copied()
    }

    pub(super) fn set(&self, why: HungUp) {
        // The first reason is the cause.
        let _ = self.0.set(why);
    }
}

/// Counts the messages of one session.
#[derive(Debug)]
pub(super) struct Bounds {
    counted: usize,
    /// The bytes that all sessions count together, and this session's share of them.
    taken: &'static AtomicUsize,
    share: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self::among(&TAKEN)
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.share, Ordering::Relaxed);
    }
}

impl Bounds {
    fn among(taken: &'static AtomicUsize) -> Self {
        Self { counted: 0, taken, share: 0 }
    }

    /// Refuses an incomplete message by its announced length.
    pub(super) fn check(&self, length: usize) -> Result<(), HungUp> {
        if length > MESSAGE {
            return Err(HungUp::Message(length));
        }
        if self.counted + length > SESSION { Err(HungUp::Session) } else { Ok(()) }
    }

    /// Counts a complete message.
    pub(super) fn count(&mut self, message: &[u8]) -> Result<(), HungUp> {
        let columns = match message {
            [b'T' | b'D', _, _, _, _, high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        self.counted += message.len() + EACH + usize::from(columns) * COLUMN;
        if self.counted > SESSION {
            return Err(HungUp::Session);
        }
        let more = self.counted.saturating_sub(OWN) - self.share;
        self.share += more;
        let together = self.taken.fetch_add(more, Ordering::Relaxed) + more;
        if more > 0 && together > TOGETHER { Err(HungUp::Together) } else { Ok(()) }
    }
}

/// Replaces the types that do not come with Postgres by `unknown`, in a description of columns or parameters. The
/// client library would ask the server for each of them and for the types inside, one call deeper each time: a type
/// inside itself would exhaust the stack and so end the process. The types are not needed: no statement of keyturn has
/// such a column, and the rows of a probe are not read.
pub(super) fn forget_types(message: &mut [u8]) -> Result<(), HungUp> {
    let Some((header, mut rest)) = message.split_at_mut_checked(5) else { return Ok(()) };
    let kind = header[0];
    if !matches!(kind, b'T' | b't') {
        return Ok(());
    }
    let count = take(&mut rest, 2)?;
    for _ in 0..u16::from_be_bytes([count[0], count[1]]) {
        if kind == b'T' {
            let name = rest.iter().position(|byte| *byte == 0).ok_or(HungUp::Malformed)?;
            // The name, the table, and the column's number in it.
            take(&mut rest, name + 1 + 4 + 2)?;
        }
        let oid = take(&mut rest, 4)?;
        if Type::from_oid(u32::from_be_bytes([oid[0], oid[1], oid[2], oid[3]])).is_none() {
            oid.copy_from_slice(&Type::UNKNOWN.oid().to_be_bytes());
        }
        if kind == b'T' {
            // The type's size and modifier, and the format.
            take(&mut rest, 2 + 4 + 2)?;
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(HungUp::Malformed) }
}

fn take<'a>(rest: &mut &'a mut [u8], count: usize) -> Result<&'a mut [u8], HungUp> {
    let (taken, left) = std::mem::take(rest).split_at_mut_checked(count).ok_or(HungUp::Malformed)?;
    *rest = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::super::hostile::{columns, message, row};
    use super::*;

    #[test]
    fn messages_up_to_a_mebibyte_are_taken() {
        let bounds = Bounds::default();
        assert_eq!(bounds.check(MESSAGE), Ok(()));
        assert_eq!(bounds.check(MESSAGE + 1), Err(HungUp::Message(1_048_577)));
    }

    #[test]
    fn a_session_ends_at_what_its_messages_would_fill() {
        let wide: Vec<&[u8]> = vec![b""; 1000];
        for (repeated, most) in [
            (message(b'd', &vec![0; 4096]), SESSION),
            (message(b'N', b"\0"), SESSION / 40),
            (row(&wide), SESSION / 8),
            (columns(&vec![25; 1000]), SESSION / 2),
        ] {
            static ALONE: AtomicUsize = AtomicUsize::new(0);
            let (taken, why) = filled(&mut Bounds::among(&ALONE), &repeated);
            assert_eq!(why, HungUp::Session);
            assert!((most / 4..=most).contains(&taken), "{taken} bytes of {:?}", &repeated[..5]);
        }
    }

    #[test]
    fn sessions_share_what_they_take_beyond_a_mebibyte_each_and_give_it_back() {
        static SHARED: AtomicUsize = AtomicUsize::new(0);
        let small = message(b'd', &[0; 4096]);
        let mut sessions: Vec<Bounds> = (0..10).map(|_| Bounds::among(&SHARED)).collect();
        let why: Vec<HungUp> = sessions.iter_mut().map(|session| filled(session, &small).1).collect();
        assert_eq!(why[..3], [HungUp::Session; 3]);
        assert_eq!(why[4..], [HungUp::Together; 6]);
        // A query about a few roles always fits.
        assert!(filled(&mut Bounds::among(&SHARED), &small).0 > OWN / 2);
        drop(sessions);
        assert_eq!(SHARED.load(Ordering::Relaxed), 0);
    }

    /// Returns how many bytes of the repeated message are accepted, and the reason for the end.
    fn filled(bounds: &mut Bounds, repeated: &[u8]) -> (usize, HungUp) {
        let mut taken = 0;
        loop {
            if let Err(why) = bounds.check(repeated.len()).and_then(|()| bounds.count(repeated)) {
                return (taken, why);
            }
            taken += repeated.len();
        }
    }

    #[test]
    fn types_that_do_not_come_with_postgres_are_forgotten() {
        let mut described = columns(&[25, 99_999, 1009]);
        forget_types(&mut described).unwrap();
        assert_eq!(described, columns(&[25, 705, 1009]));
        let mut parameters = message(b't', &[0, 2, 0, 1, 0, 0, 0, 0, 0, 25]);
        forget_types(&mut parameters).unwrap();
        assert_eq!(parameters, message(b't', &[0, 2, 0, 0, 2, 0xc1, 0, 0, 0, 25]));
        for other in [row(&[b"\0\0\0\0"]), message(b'Z', b"I"), message(b'1', b"")] {
            let mut same = other.clone();
            forget_types(&mut same).unwrap();
            assert_eq!(same, other);
        }
    }

    #[test]
    fn a_description_that_is_cut_or_too_long_is_refused() {
        let whole = columns(&[25, 99_999]);
        for end in 5..whole.len() {
            assert_eq!(forget_types(&mut whole[..end].to_vec()), Err(HungUp::Malformed), "{end} bytes");
        }
        let longer = [&whole[..], b"\0"].concat();
        assert_eq!(forget_types(&mut longer.clone()), Err(HungUp::Malformed));
    }
}
