//! Measures the memory that the audit of images holds, byte by byte: this program has a counting allocator, and its
//! tests run one at a time.

#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use keyturn::audit::layers::{self, Limits};
use keyturn::audit::managed::{ManagedValues, Matcher};
use keyturn::audit::{self, Allowances, Fingerprints, image};
use keyturn::secret_value::SecretValue;

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work; the counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller guarantees the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller guarantees pointer and layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns the most bytes that are held during the work, beyond those held before.
fn most_held<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = work();
    (result, MOST.load(Ordering::Relaxed) - before)
}

/// A text that is repeated up to a number of bytes.
struct Repeated {
    text: &'static [u8],
    at: usize,
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.text[self.at];
            self.at = (self.at + 1) % self.text.len();
        }
        Ok(buffer.len())
    }
}

fn header(path: &str, size: u64, kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn file(path: &str, content: &[u8]) -> Vec<u8> {
    let padding = vec![0; (512 - content.len() % 512) % 512];
    [header(path, content.len() as u64, tar::EntryType::Regular), content.to_vec(), padding].concat()
}

/// Returns an archive of one layer with one entry of this size. It is generated while it is read.
fn archive(kind: tar::EntryType, text: &'static [u8], size: u64) -> impl Read {
    let before =
        [header("00/layer.tar", size + 1536, tar::EntryType::Regular), header("app/.env", size, kind)]
            .concat();
    let behind = [
        vec![0; 1024],
        file("c.json", br#"{"config":{},"history":[{"created_by":"x"}]}"#),
        file("manifest.json", br#"[{"Config":"c.json","Layers":["00/layer.tar"]}]"#),
        vec![0; 1024],
    ]
    .concat();
    Cursor::new(before).chain(Repeated { text, at: 0 }.take(size)).chain(Cursor::new(behind))
}

const SIZE: u64 = 16 << 20;
const BOUND: usize = 3 << 20;

#[test]
fn memory_does_not_grow_with_a_file_a_line_a_header_or_the_number_of_secrets() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let tokens = b"API_TOKEN=8f3a1c9d7e5b2a4c6d8e0f1a3b5c7d9e ghp_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6\n";
    for (case, text, hits) in
        [("one line", b"a".as_slice(), 0), ("zeros", b"\0".as_slice(), 0), ("secrets", tokens.as_slice(), 1)]
    {
        let content = archive(tar::EntryType::Regular, text, SIZE);
        let (scanned, held) = most_held(|| layers::scan(content, None, Limits::default()).unwrap());
        assert_eq!((scanned.looked.files, scanned.hits.len()), (1, hits), "{case}");
        assert!(scanned.looked.bytes >= SIZE, "{case}: {:?}", scanned.looked);
        assert!(held < BOUND, "{case}: {held} bytes were held");
    }
    for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
        let content = archive(kind, b"a", SIZE);
        let (scanned, held) = most_held(|| layers::scan(content, None, Limits::default()).unwrap());
        assert!(scanned.looked.problems[0].contains("extended header"), "{:?}", scanned.looked);
        assert!(held < BOUND, "{kind:?}: {held} bytes were held");
    }
    // Checks the counter: content that is read as a whole exceeds the limit.
    let mut content = archive(tar::EntryType::Regular, b"a", SIZE);
    let (_, held) = most_held(|| io::copy(&mut content, &mut Vec::new()).unwrap());
    assert!(held > SIZE as usize);
}

/// Most bytes that docker may report about one image on a docker host.
const SAID: usize = 1 << 20;
/// Limit of the memory for that report: the pod of a deploy Job has 64 MiB for everything.
const BOUND_OF_WHAT_IS_SAID: usize = 16 << 20;

/// Returns docker's report about an image: `before`, as many copies of `piece` as fit, and `after`.
fn inspect(before: &str, piece: &str, after: &str) -> String {
    let rest = r#""RootFS":{}}"#;
    let pieces = (SAID - before.len() - after.len() - rest.len() - 16) / piece.len();
    format!("{{{before}{}{after},{rest}", piece.repeat(pieces))
}

#[test]
fn memory_does_not_grow_with_the_number_of_things_that_docker_says_about_an_image() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let labels: String = (0..70_000).map(|n| format!("\"{n}\":\"\",")).collect();
    let history: String = (0..45_000).map(|_| "{\"CreatedBy\":\"a b\"}\n").collect();
    for (case, said, history) in [
        ("assignments", inspect(r#""Config":{"OnBuild":["ENV"#, " A=", r#""]}"#), ""),
        ("words", inspect(r#""Config":{"Cmd":["x""#, r#","""#, "]}"), ""),
        ("variables", inspect(r#""Config":{"Env":["x""#, r#","""#, "]}"), ""),
        ("labels", format!(r#"{{"Config":{{"Labels":{{{labels}"x":""}}}},"RootFS":{{}}}}"#), ""),
        ("names", inspect(r#""Config":{},"RepoTags":["x""#, r#","""#, "]"), ""),
        ("layers", inspect(r#""Config":{},"RootFS":{"Layers":["x""#, r#","""#, "]}"), ""),
        ("history", r#"{"Config":{},"RootFS":{}}"#.to_owned(), history.as_str()),
    ] {
        let (said, history) = (SecretValue::new(said), SecretValue::new(history.to_owned()));
        assert!(said.len() + history.len() > SAID / 2 && said.len() <= SAID, "{case}: {}", said.len());
        let (looked, held) = most_held(|| {
            let matcher = Matcher::new(&ManagedValues::new(&[], &[1; 32])).unwrap();
            let image = image::parse(&said, &history)?;
            let fingerprints = Fingerprints::default();
            Ok::<_, image::ImageError>(audit::audit(
                &image,
                &Allowances::default(),
                &fingerprints,
                Some(&matcher),
            ))
        });
        assert!(looked.is_err(), "{case}: an image that was looked at in part is not called clean");
        assert!(held < BOUND_OF_WHAT_IS_SAID, "{case}: {held} bytes were held");
    }
}
